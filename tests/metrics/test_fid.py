"""FID: what it refuses, and its distance against that of torch-fidelity."""

import inspect
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch_fidelity.metric_fid import KEY_METRIC_FID

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.moments import Moments, frechet_distance

CPU = torch.device("cpu")


def pictures(count: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, channels, 2, 2), dtype=torch.uint8)


def test_wrong_pixels_are_refused() -> None:
    with pytest.raises(ConfigError, match="rfid needs images of 1 or 3 channels, these have 4"):
        FID().features_of_pixels(pictures(2, channels=4))
    # Without the checks that the tests switch on for every annotation, as in a training run.
    with pytest.raises(TypeError, match=r"uint8, got torch\.float32"):
        inspect.unwrap(FID.features_of_pixels)(FID(), pictures(2).float())


def test_the_network_moves_along() -> None:
    fid = FID()
    fid.network = nn.Linear(1, 1)
    fid.to(torch.device("meta"))
    assert fid.network.weight.device.type == "meta"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(WeightsError, match=f"cannot use {file}") as caught:
        FID().load({"inception": file})
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
    fid = FID()
    fid.load({"inception": inception_file})
    moments = [Moments(dim=fid.dim, device=CPU), Moments(dim=fid.dim, device=CPU)]
    for index in range(0, 16, 8):
        batch = slice(index, index + 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for each, pixels in zip(moments, (made[batch], originals[batch]), strict=True):
                each.add(fid.features_of_pixels(pixels), torch.ones(8, dtype=torch.bool))
    distance, count = frechet_distance(*moments), moments[0].count
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
