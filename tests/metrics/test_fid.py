"""FID against torch-fidelity and numpy, on random features and a random Inception network."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.metrics import fid as module
from vqtrain.metrics.fid import FID, Moments, frechet_distance, load_inception

CPU = torch.device("cpu")


def moments_of(features: Tensor) -> Moments:
    moments = Moments(dim=features.shape[1], device=CPU)
    for batch in features.split(7):
        moments.add(batch, torch.ones(len(batch), dtype=torch.bool))
    return moments


def reference(first: Tensor, second: Tensor) -> float:
    """The distance by torch-fidelity, which keeps the precision of features."""
    statistics = [fid_features_to_statistics(features.double()) for features in (first, second)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def features_like_those_of_inception(count: int, dim: int) -> Tensor:
    """Not negative, with means that are large beside their correlated deviations."""
    mixed = torch.randn(count, dim) @ torch.randn(dim, dim) / dim**0.5
    return (0.5 + 0.3 * mixed).relu()


@pytest.mark.parametrize(("count", "dim"), [(200, 16), (10, 16), (2, 4)])
def test_distance_is_that_of_torch_fidelity(count: int, dim: int) -> None:
    first = features_like_those_of_inception(count, dim)
    second = features_like_those_of_inception(count + 3, dim) * 1.2
    found = frechet_distance(moments_of(first), moments_of(second))
    assert found > 0.01
    assert found == pytest.approx(reference(first, second), rel=1e-6)


def test_distance_of_two_known_distributions() -> None:
    # Means 1 and 4; variances 2 (of 0, 2) and 8 (of 2, 6): (4-1)^2 + 2 + 8 - 2 sqrt(2 * 8) = 11.
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [6.0]])
    assert frechet_distance(moments_of(first), moments_of(second)) == pytest.approx(11.0)


@pytest.mark.parametrize("count", [40, 2000])
def test_a_set_is_at_distance_0_from_itself(count: int) -> None:
    features = features_like_those_of_inception(count, 256)
    distance = frechet_distance(moments_of(features), moments_of(features.flip(0)))
    assert 0 <= distance < 1e-3


def test_moments_are_those_of_numpy() -> None:
    features = features_like_those_of_inception(50, 8)
    moments = moments_of(features)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, features.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        moments.covariance, np.cov(features.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12
    )


def test_masked_features_are_ignored_even_if_they_are_not_numbers() -> None:
    features = torch.tensor([[1.0, 2.0], [math.nan, math.inf], [3.0, 5.0]])
    moments = Moments(dim=2, device=CPU)
    moments.add(features, torch.tensor([True, False, True]))
    # The matrix of [1, f] [1, f]^T over [1, 1, 2] and [1, 3, 5].
    assert moments.sums.tolist() == [[2, 4, 7], [4, 10, 17], [7, 17, 29]]


def test_features_that_are_no_numbers_are_not_hidden() -> None:
    features = torch.tensor([[1.0], [math.nan], [2.0]])
    assert math.isnan(frechet_distance(moments_of(features), moments_of(torch.rand(3, 1))))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_distance(count: int) -> None:
    few, many = moments_of(torch.rand(count, 4)), moments_of(torch.rand(9, 4))
    assert math.isnan(frechet_distance(few, many))
    assert math.isnan(frechet_distance(many, few))


class Flat(nn.Module):
    """Takes pixels as they are for features."""

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Return a tuple, as the network of torch-fidelity does."""
        return (pixels.flatten(1).float() / 255,)


def pictures(count: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, channels, 2, 2), dtype=torch.uint8)


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> FID:
    monkeypatch.setattr(module, "FEATURES", 12)  # 3 x 2 x 2
    return FID(network=Flat())


def every(images: Tensor) -> Tensor:
    return torch.ones(len(images), dtype=torch.bool)


def test_fid_compares_reconstructions_with_originals(flat: FID) -> None:
    made, originals = pictures(20), pictures(20) // 2
    for index in range(0, 20, 8):
        batch = slice(index, index + 8)
        flat.add(made[batch], originals[batch], every(made[batch]))
    distance, count = flat.compute()
    assert count == 20
    expected = reference(made.flatten(1).float() / 255, originals.flatten(1).float() / 255)
    assert distance == pytest.approx(expected, rel=1e-6)


def test_filled_up_places_do_not_count(flat: FID) -> None:
    made, originals = pictures(6), pictures(6)
    flat.add(made[:5], originals[:5], every(made[:5]))
    distance, _ = flat.compute()
    other = FID(network=Flat())
    other.add(made, originals, torch.tensor([True] * 5 + [False]))
    assert other.compute() == (pytest.approx(distance, rel=1e-9), 5)


def test_a_gray_image_is_one_of_three_equal_channels(flat: FID) -> None:
    made, originals = pictures(5, channels=1), pictures(5, channels=1)
    flat.add(made, originals, every(made))
    other = FID(network=Flat())
    other.add(made.repeat(1, 3, 1, 1), originals.repeat(1, 3, 1, 1), every(made))
    assert flat.compute() == other.compute()


def test_a_new_round_begins_anew_and_keeps_the_originals(
    flat: FID, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = pictures(9)
    flat.add(originals, originals, every(originals))
    assert flat.compute() == (pytest.approx(0.0, abs=1e-6), 9)
    flat.clear()
    seen = []
    monkeypatch.setattr(
        flat, "network", lambda images: (seen.append(len(images)), Flat()(images)[0])[1:]
    )
    made = pictures(9)
    flat.add(made, originals, every(made))
    expected = reference(made.flatten(1).float() / 255, originals.flatten(1).float() / 255)
    assert flat.compute() == (pytest.approx(expected, rel=1e-6), 9)
    assert seen == [9]  # the reconstructions alone


def test_a_round_that_was_left_is_forgotten(flat: FID) -> None:
    made, originals = pictures(5), pictures(5)
    flat.add(pictures(3), pictures(3), every(made[:3]))
    flat.clear()
    flat.add(made, originals, every(made))
    expected = reference(made.flatten(1).float() / 255, originals.flatten(1).float() / 255)
    assert flat.compute() == (pytest.approx(expected, rel=1e-6), 5)


def test_another_number_of_originals_is_refused(flat: FID) -> None:
    made, originals = pictures(5), pictures(5)
    flat.add(made, originals, every(made))
    flat.compute()
    flat.add(made, originals, every(made))  # without clear()
    with pytest.raises(ValueError, match="got 10 images after 5"):
        flat.compute()


def test_wrong_pixels_are_refused(flat: FID) -> None:
    with pytest.raises(ConfigError, match="1 or 3 channels, got 4"):
        flat.add(pictures(2, channels=4), pictures(2, channels=4), every(pictures(2)))
    # Without the checks that the tests switch on for every annotation, as in a training run.
    with pytest.raises(TypeError, match=r"uint8 pixels, got torch\.float32"):
        inspect.unwrap(FID.features)(flat, pictures(2).float())


def test_network_and_sums_move_along(flat: FID) -> None:
    flat.network = nn.Linear(1, 1)
    flat.known = Moments(dim=12, device=CPU)
    moved = flat.to(torch.device("meta"))
    assert moved is flat
    tensors = [flat.network.weight, *(m.sums for m in (flat.known, flat.originals))]
    tensors.append(flat.reconstructions.sums)
    flat.clear()
    tensors += [flat.originals.sums, flat.reconstructions.sums]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


SCRIPT = """
from vqtrain.metrics import fid as module
from vqtrain.metrics.fid import FID

module.FEATURES = 12

class Flat(torch.nn.Module):
    def forward(self, pixels):
        return (pixels.flatten(1).float() / 255,)

results = {}
torch.manual_seed(0)
# More pictures than features: the root of a covariance without full rank makes 1e-8 of rounding.
made, originals = torch.randint(0, 256, (2, 40, 3, 2, 2), dtype=torch.uint8)
for split in (25, 40):
    mine = slice(0, split) if rank == 0 else slice(split, 40)
    if world_size == 1:
        mine = slice(0, 40)
    fid = FID(network=Flat())
    if len(made[mine]):
        fid.add(made[mine], originals[mine], torch.ones(len(made[mine]), dtype=torch.bool))
    results[str(split)] = fid.compute()
    assert fid.compute() == results[str(split)]  # reducing changes no state
torch.save(results, f"{folder}/{rank}.pt")
"""


@pytest.mark.ddp
def test_two_ranks_equal_one(run_ranks: Callable[[str, int], Path]) -> None:
    alone = torch.load(run_ranks(SCRIPT, 1) / "0.pt", weights_only=True)
    folder = run_ranks(SCRIPT, 2)
    for rank in range(2):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        for split in ("25", "40"):
            distance, count = found[split]
            assert count == 40
            assert distance == pytest.approx(alone[split][0], rel=1e-9)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(WeightsError, match=f"cannot use {file}") as caught:
        load_inception(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_from_pixels_to_distance_as_torch_fidelity(
    inception_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    originals = torch.randint(0, 256, (16, 3, 4, 4), dtype=torch.uint8)
    originals = nn.functional.interpolate(originals.float(), size=32, mode="bicubic")
    originals = originals.clamp(0, 255).to(torch.uint8)
    made = originals // 2 + torch.randint(0, 40, originals.shape, dtype=torch.uint8)
    fid = FID(network=load_inception(str(inception_file)))
    for index in range(0, 16, 8):
        batch = slice(index, index + 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fid.add(made[batch], originals[batch], torch.ones(8, dtype=torch.bool))
    distance, count = fid.compute()
    expected = torch_fidelity.calculate_metrics(
        input1=Images(made),
        input2=Images(originals),
        fid=True,
        cuda=False,
        batch_size=8,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        feature_extractor_weights_path=str(inception_file),
    )[KEY_METRIC_FID]
    assert count == 16
    assert expected > 1e-3
    # torch-fidelity averages features in float32.
    assert distance == pytest.approx(expected, rel=1e-4)


class Images(TensorDataset):
    """Pictures one by one, as torch-fidelity wants them."""

    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index)[0]
