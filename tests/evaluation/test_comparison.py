"""Comparisons: what counts, which originals are computed, and several ranks."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtrain.errors import DataError
from vqtrain.evaluation.comparison import OWN, Clock, Comparison, Result
from vqtrain.metrics.base import SampleMetric, SetMetric
from vqtrain.metrics.parts.build import build_metrics, load_weights
from vqtrain.metrics.parts.moments import Moments
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.si_sdr import SISDR
from vqtrain.ops.pixels import to_images

CPU = torch.device("cpu")


class Flat(SetMetric):
    """Takes pixels as they are for features, and remembers how many it has seen."""

    name, title, higher_is_better, dim = "flat", "Flat", False, 12  # 3 x 2 x 2

    def __init__(self) -> None:
        self.seen: list[int] = []

    def features(self, samples: Tensor) -> Tensor:
        """Return features of reconstructions."""
        self.seen.append(len(samples))
        return (samples.flatten(1) + 1) / 2

    def features_of_pixels(self, pixels: Tensor) -> Tensor:
        """Return features of originals."""
        return self.features(to_images(pixels))


def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 2, 2), dtype=torch.uint8)


def distance_by_numpy(first: Tensor, second: Tensor) -> float:
    first, second = (each.flatten(1).double().numpy() / 255 for each in (first, second))
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0))
    difference = first.mean(0) - second.mean(0)
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * roots.sum())


def compare(
    made: Tensor,
    originals: Tensor,
    *,
    metric: SetMetric | None = None,
    known: Mapping[str, Moments] | None = None,
    masked: int = 0,
) -> tuple[Comparison, Result]:
    """Compare in batches of 5, of which the last samples may be masked."""
    metrics = [PSNR(), metric or Flat()]
    comparison = Comparison(metrics, known=known or {}, clock=Clock(None), device=CPU)
    mask = torch.arange(len(made)) < len(made) - masked
    batches = zip(made.split(5), originals.split(5), mask.split(5), strict=True)
    for reconstruction, original, part in batches:
        comparison.add(to_images(original), to_images(reconstruction), part, {})
    return comparison, comparison.gather()[1][OWN]


def test_all_reconstructions_are_compared_with_all_originals() -> None:
    made, originals = pixels(20), pixels(20) // 2
    _, result = compare(made, originals)
    expected = {"flat@20": pytest.approx(distance_by_numpy(made, originals), rel=1e-5)}
    assert result.distances == expected
    assert result.values["psnr"] == PSNR()(made, originals).tolist()
    assert result.metrics == {"psnr": np.mean(result.values["psnr"]), **result.distances}


def test_filled_up_places_do_not_count() -> None:
    made, originals = pixels(20), pixels(20)
    _, result = compare(made, originals, masked=3)
    assert result.values["psnr"] == PSNR()(made[:17], originals[:17]).tolist()
    expected = distance_by_numpy(made[:17], originals[:17])
    assert result.distances == {"flat@17": pytest.approx(expected, rel=1e-5)}


def test_originals_that_are_known_are_not_computed_again() -> None:
    originals = pixels(15)
    first, result = compare(originals, originals)
    assert result.distances["flat@15"] == pytest.approx(0.0, abs=1e-6)
    made, metric = pixels(15), Flat()
    second, result = compare(made, originals, metric=metric, known=first.originals)
    assert result.distances["flat@15"] == pytest.approx(distance_by_numpy(made, originals), 1e-5)
    assert metric.seen == [5, 5, 5]  # the reconstructions alone
    assert torch.equal(second.originals["flat"].sums, first.originals["flat"].sums)


def test_metrics_of_sounds_get_floats_that_are_clamped_and_not_rounded() -> None:
    comparison = Comparison([SISDR()], known={}, clock=Clock(None), device=CPU)
    samples = torch.rand(2, 1, 50) * 1e-3  # all of one level of 256
    made = (samples + 1e-4 * torch.randn(2, 1, 50)).index_fill(2, torch.tensor(0), 7.0)
    comparison.add(samples, made.double(), torch.ones(2, dtype=torch.bool), {})
    expected = SISDR()(made.double().clamp(max=1.0), samples)
    assert comparison.gather()[1][OWN].values["si_sdr"] == expected.tolist()


def test_clips_are_measured_frame_by_frame(classifier_file: Callable[[str], Path]) -> None:
    metrics = build_metrics(["psnr", "ssim", "lpips", "temporal_error"])
    load_weights(metrics, {"alex": str(classifier_file("alex"))}, CPU)
    psnr, ssim, lpips, temporal_error = (cast(SampleMetric, each) for each in metrics)
    comparison = Comparison(metrics, known={}, clock=Clock(None), device=CPU)
    originals = torch.randint(60, 190, (5, 3, 4, 32, 32), dtype=torch.uint8)
    # Noise that grows from clip to clip and from frame to frame.
    most = 4 + 5 * torch.arange(5)[:, None] + 9 * torch.arange(4)
    noise = torch.randint(0, 256, originals.shape) % most[:, None, :, None, None]
    made = originals + noise.byte()
    mask = torch.tensor([True, True, True, True, False, False])
    for first in (0, 3):  # the last clip fills up its batch, and one more does not count
        places = torch.arange(first, first + 3).clamp(max=4)
        pair = (to_images(each[places]) for each in (originals, made))
        baseline = made[places].flip(2), torch.zeros(3).double()  # frames in the other order
        comparison.add(*pair, mask[first : first + 3], {"flipped": baseline})
    results = comparison.gather()[1]
    result = results[OWN]
    flipped = [psnr(made[:4, :, 3 - t], originals[:4, :, t]).mean().item() for t in range(4)]
    assert results["flipped"].frames["psnr"] == pytest.approx(flipped)
    assert list(result.frames) == ["psnr", "ssim", "lpips_alex"]
    for metric in (psnr, ssim, lpips):
        frames = [
            [metric(made[n : n + 1, :, t], originals[n : n + 1, :, t]) for t in range(4)]
            for n in range(4)
        ]
        by_clip = torch.tensor(frames)
        assert result.values[metric.name] == pytest.approx(by_clip.mean(1).tolist(), rel=1e-5)
        assert result.frames[metric.name] == pytest.approx(by_clip.mean(0).tolist(), rel=1e-5)
        assert result.means[metric.name] == pytest.approx(by_clip.mean().item(), rel=1e-5)
    assert result.values["temporal_error"] == temporal_error(made, originals)[:4].tolist()


def test_another_number_of_originals_is_refused() -> None:
    first, _ = compare(pixels(5), pixels(5))
    with pytest.raises(DataError, match="the same originals every time, got 10 after 5"):
        compare(pixels(10), pixels(10), known=first.originals)


def test_without_samples_a_mean_is_not_a_number() -> None:
    assert math.isnan(Result(values={"psnr": []}, distances={}).means["psnr"])


SCRIPT = """
from vqtrain.evaluation.comparison import OWN, Clock, Comparison
from vqtrain.metrics.base import SetMetric
from vqtrain.metrics.psnr import PSNR
from vqtrain.ops.pixels import to_images

class Flat(SetMetric):
    name, title, higher_is_better, dim = "flat", "Flat", False, 12
    def features(self, samples):
        return (samples.flatten(1) + 1) / 2
    def features_of_pixels(self, pixels):
        return self.features(to_images(pixels))

results = {}
torch.manual_seed(0)
# More samples than features: the root of a covariance without full rank makes 1e-8 of rounding.
made, originals = torch.randint(0, 256, (2, 40, 3, 2, 2), dtype=torch.uint8)
for split in (25, 40):
    mask = torch.ones(40, dtype=torch.bool)
    if world_size > 1:
        mask = (torch.arange(40) < split) == (rank == 0)
    device = torch.device("cpu")
    comparison = Comparison([PSNR(), Flat()], known={}, clock=Clock(None), device=device)
    comparison.add(to_images(originals), to_images(made), mask, {})
    result = comparison.gather()[1][OWN]
    results[split] = [sorted(result.values["psnr"]), result.means["psnr"], result.distances]
    comparison = Comparison([PSNR()], known={}, clock=Clock(None), device=device)
    clips = [to_images(each)[..., None].movedim(2, 4).contiguous() for each in (originals, made)]
    comparison.add(*clips, mask, {})
    results[split].append(comparison.gather()[1][OWN].frames)
torch.save(results, f"{folder}/{rank}.pt")
"""


@pytest.mark.ddp
def test_two_ranks_equal_one(run_ranks: Callable[[str, int], Path]) -> None:
    alone = torch.load(run_ranks(SCRIPT, 1) / "0.pt", weights_only=True)
    folder = run_ranks(SCRIPT, 2)
    for rank in range(2):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        for split in (25, 40):
            values, mean, distances, frames = found[split]
            assert [values, mean] == alone[split][:2]  # to the last bit
            assert frames == alone[split][3]
            assert len(frames["psnr"]) == 2
            assert distances == {"flat@40": pytest.approx(alone[split][2]["flat@40"], rel=1e-9)}
