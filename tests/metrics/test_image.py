"""PSNR, SSIM and MS-SSIM against torchmetrics and values worked out by hand."""

import inspect
import math
from collections.abc import Callable

import pytest
import skimage.metrics
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from vqtrain.errors import ConfigError
from vqtrain.metrics.image import ms_ssim, psnr, ssim

SHAPES = [(3, 3, 32, 24), (2, 1, 11, 11), (2, 4, 11, 40)]


def pictures(shape: tuple[int, ...], noise: int) -> tuple[Tensor, Tensor]:
    """Smooth pictures, so that SSIM is far from 0, and the same with noise."""
    generator = torch.Generator().manual_seed(0)
    b, c, h, w = shape
    phase = torch.rand(b, c, 1, 1, generator=generator) * 6
    rows = torch.arange(h).reshape(h, 1) / 5
    columns = torch.arange(w).reshape(1, w) / 7
    original = (127.5 + 100 * torch.sin(rows + columns + phase)).round()
    change = torch.randint(-noise, noise + 1, shape, generator=generator)
    return (original + change).clamp(0, 255).to(torch.uint8), original.to(torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_psnr_equals_torchmetrics(shape: tuple[int, ...], noise: int) -> None:
    reconstruction, original = pictures(shape, noise)
    expected = peak_signal_noise_ratio(
        reconstruction.double(),
        original.double(),
        data_range=255.0,
        reduction="none",
        dim=(1, 2, 3),
    )
    # torchmetrics takes its logarithm of 10 in float32, so eight digits are all it has.
    torch.testing.assert_close(psnr(reconstruction, original), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_psnr_equals_scikit_image(shape: tuple[int, ...], noise: int) -> None:
    reconstruction, original = pictures(shape, noise)
    expected = [
        skimage.metrics.peak_signal_noise_ratio(true, test, data_range=255)
        for true, test in zip(original.numpy(), reconstruction.numpy(), strict=True)
    ]
    assert psnr(reconstruction, original).tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_equals_the_hand_worked_value() -> None:
    original = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    reconstruction = original.clone()
    reconstruction[0, 0, 0, 0] = 10  # mean square 100 / 4 = 25: 20 log10(255 / 5) = 20 log10(51)
    reconstruction[1] = 255  # 0 dB, the least there is
    expected = torch.tensor([20 * math.log10(51), 0.0, 100.0], dtype=torch.float64)
    torch.testing.assert_close(psnr(reconstruction, original), expected)


def test_psnr_does_not_wrap_around() -> None:
    # In uint8 arithmetic 0 - 255 would be 1, and PSNR 48 dB.
    black, white = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 255).byte()
    assert psnr(black, white).item() == psnr(white, black).item() == 0.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_ssim_equals_torchmetrics(shape: tuple[int, ...], noise: int) -> None:
    reconstruction, original = pictures(shape, noise)
    expected = structural_similarity_index_measure(
        reconstruction.double(),
        original.double(),
        gaussian_kernel=True,
        sigma=1.5,
        kernel_size=11,
        data_range=255.0,
        reduction="none",
    )
    found = ssim(reconstruction, original)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_ssim_of_flat_pictures_equals_the_hand_worked_value() -> None:
    # Without variance the second factor is 1; the first is (2 x y + c1) / (x^2 + y^2 + c1)
    # with c1 = 2.55^2 = 6.5025: (2 * 100 * 50 + 6.5025) / (100^2 + 50^2 + 6.5025).
    reconstruction = torch.full((1, 3, 12, 12), 100, dtype=torch.uint8)
    original = torch.full((1, 3, 12, 12), 50, dtype=torch.uint8)
    expected = (10_000 + 6.5025) / (12_500 + 6.5025)
    assert ssim(reconstruction, original).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 176, 192), (1, 1, 177, 200)])
@pytest.mark.parametrize("noise", [3, 90])
def test_ms_ssim_equals_torchmetrics(shape: tuple[int, ...], noise: int) -> None:
    reconstruction, original = pictures(shape, noise)
    expected = multiscale_structural_similarity_index_measure(
        reconstruction.double(),
        original.double(),
        gaussian_kernel=True,
        sigma=1.5,
        kernel_size=11,
        data_range=255.0,
        betas=(0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
        normalize="relu",
        reduction="none",
    )
    found = ms_ssim(reconstruction, original)
    assert found.dtype == torch.float64
    # The exponents of torchmetrics are float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_ms_ssim_of_flat_pictures_equals_the_hand_worked_value() -> None:
    # Only the coarsest scale sees that one is darker: (10,000 + c1) / (12,500 + c1) to its weight.
    reconstruction = torch.full((1, 3, 161, 161), 100, dtype=torch.uint8)
    original = torch.full((1, 3, 161, 161), 50, dtype=torch.uint8)
    expected = ((10_000 + 6.5025) / (12_500 + 6.5025)) ** 0.1333
    assert ms_ssim(reconstruction, original).item() == pytest.approx(expected, abs=1e-9)


def test_ms_ssim_of_a_negative_is_0_and_not_nan() -> None:
    _, original = pictures((1, 1, 176, 176), 3)
    assert ms_ssim(255 - original, original).item() == 0.0


def test_an_image_counts_alone_whatever_else_is_in_the_batch() -> None:
    reconstruction, original = pictures((3, 3, 16, 16), 10)
    for metric in (psnr, ssim):
        alone = torch.cat(
            [metric(reconstruction[i : i + 1], original[i : i + 1]) for i in range(3)]
        )
        assert torch.equal(metric(reconstruction, original), alone)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    small = torch.zeros(1, 3, 64, 10, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="at least 11 x 11 px, got 64 x 10"):
        ssim(small, small)


def test_ms_ssim_refuses_images_whose_coarsest_scale_is_smaller_than_its_window() -> None:
    small = torch.zeros(1, 3, 200, 160, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="more than 160 px along each side, got 200 x 160"):
        ms_ssim(small, small)


# Without the checks that the tests switch on for every annotation, as in a training run.
@pytest.mark.parametrize("metric", [inspect.unwrap(metric) for metric in (psnr, ssim, ms_ssim)])
def test_anything_but_pixels_is_refused_at_run_time(metric: Callable[..., Tensor]) -> None:
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for wrong in (pixels.float(), pixels.long()):
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            metric(wrong, pixels)
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            metric(pixels, wrong)
    with pytest.raises(ValueError, match="one shape"):
        metric(pixels, pixels[:, :1])  # would be broadcast
    with pytest.raises(ValueError, match="one shape"):
        metric(pixels[0], pixels[0])


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim])
def test_anything_but_pixels_is_refused_by_the_annotations(metric: Callable[..., Tensor]) -> None:
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(TypeError, match="UInt8"):
        metric(pixels.float(), pixels.float())
