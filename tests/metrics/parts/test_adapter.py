"""Metrics of torchmetrics by the name of their class."""

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import universal_image_quality_index, visual_information_fidelity

from vqtrain.errors import ConfigError
from vqtrain.metrics.base import SampleMetric
from vqtrain.metrics.parts.build import build_metric, why_not
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.si_sdr import SISDR


def pixels(size: int = 48, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def built(entry: str | dict[str, object]) -> SampleMetric:
    metric = build_metric(entry)
    assert isinstance(metric, SampleMetric)
    return metric


def test_values_are_those_of_single_images_in_float64() -> None:
    metric = built("torchmetrics.image:VisualInformationFidelity")
    reconstruction, original = pixels(), pixels()
    expected = [
        visual_information_fidelity(one[None].double(), other[None].double()).item()
        for one, other in zip(reconstruction, original, strict=True)
    ]
    found = metric(reconstruction, original)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_what_it_declares_is_read_off_the_class() -> None:
    metric = built("torchmetrics.image:VisualInformationFidelity")
    assert metric.name == "visual_information_fidelity"
    assert metric.title == "Visual Information Fidelity"
    assert (metric.higher_is_better, metric.axes) == (True, 2)
    assert not built("torchmetrics.image:SpectralAngleMapper").higher_is_better


def test_it_gets_the_range_that_it_asks_for_unless_one_is_given() -> None:
    reconstruction, original = pixels(), pixels()
    exact = PSNR()(reconstruction, original)
    metric = built("torchmetrics.image:PeakSignalNoiseRatio")
    torch.testing.assert_close(metric(reconstruction, original), exact, rtol=1e-6, atol=0)
    half = built({"kind": "torchmetrics.image:PeakSignalNoiseRatio", "data_range": 127.5})
    assert (half(reconstruction, original) < exact - 6).all()
    assert "data_range=127.5" in half.definition


def test_metrics_of_sounds_get_floats() -> None:
    metric = built("torchmetrics.audio:ScaleInvariantSignalDistortionRatio")
    original = torch.randn(3, 1, 60) / 3
    reconstruction = original + 0.1 * torch.randn(3, 1, 60)
    torch.testing.assert_close(metric(reconstruction, original), SISDR()(reconstruction, original))
    assert why_not(metric, 1, (60,)) is None
    assert why_not(metric, 1, (6, 6)) is not None


def test_arguments_reach_it() -> None:
    reconstruction, original = pixels(), pixels()
    kind = "torchmetrics.image:UniversalImageQualityIndex"
    found = built({"kind": kind, "kernel_size": [7, 7]})(reconstruction, original)
    one = reconstruction[:1].double(), original[:1].double()
    expected = universal_image_quality_index(*one, kernel_size=(7, 7)).item()
    assert found[0].item() == pytest.approx(expected, rel=1e-9)


def test_a_metric_of_plain_numbers_takes_samples_of_any_number_of_axes() -> None:
    metric = built("torchmetrics:MeanSquaredError")
    reconstruction, original = torch.randint(0, 256, (2, 4, 2, 30), dtype=torch.uint8)
    expected = (reconstruction.double() - original.double()).square().mean((1, 2))
    torch.testing.assert_close(metric(reconstruction, original), expected)
    assert metric.higher_is_better is False


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("torchmetrics.image:DeepImageStructureAndTextureSimilarity", "write dists instead of"),
        ("torchmetrics.image:FrechetInceptionDistance", "write fid instead of"),
        ("torchmetrics.image:LearnedPerceptualImagePatchSimilarity", "write lpips instead of"),
        ("torchmetrics.image:TotalVariation", "does not rate pairs of samples"),
        ("torchmetrics.image:Missing", "cannot import"),
        ("torchmetrics.utilities:check_forward_full_state_property", "is not a class"),
        ("torchmetrics.utilities.enums:DataType", "must inherit from"),
        (
            {"kind": "torchmetrics.image:UniversalImageQualityIndex", "kernel": 3},
            "cannot build UniversalImageQualityIndex",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(entry: str | dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_metric(entry)
    assert "\n" not in str(caught.value)


def test_samples_that_it_does_not_take_are_found_before() -> None:
    metric = build_metric("torchmetrics.image:VisualInformationFidelity")
    assert why_not(metric, 3, (48, 48)) is None
    reason = why_not(metric, 3, (16, 16))
    assert reason is not None
    assert reason.startswith("visual_information_fidelity does not take samples of [3, 16, 16]: ")


def test_a_metric_of_other_inputs_is_found_before() -> None:
    metric = build_metric("torchmetrics.image:QualityWithNoReference")
    reason = why_not(metric, 3, (48, 48))
    assert reason is not None
    assert "quality_with_no_reference does not take samples of [3, 48, 48]: " in reason
