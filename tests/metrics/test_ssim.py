"""SSIM against a reference written by hand, torchmetrics, and values worked out by hand."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from vqtrain.errors import ConfigError
from vqtrain.metrics.ssim import SSIM

Pair = Callable[..., tuple[Tensor, Tensor]]

SHAPES = [(3, 3, 32, 24), (2, 1, 11, 11), (2, 4, 11, 40)]


def smooth(x: Tensor) -> Tensor:
    """Average over a Gaussian window of 11 px wherever it fits, an axis after the other."""
    window = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) / 1.5).square() / 2)
    window = window / window.sum()
    for axis in (2, 3):
        length = x.shape[axis] - 10
        x = sum(share * x.narrow(axis, k, length) for k, share in enumerate(window.tolist()))
    return x


def by_hand(reconstruction: Tensor, original: Tensor) -> Tensor:
    """The formula of Wang et al. 2004, with pixels mirrored at the border."""
    x, y = (F.pad(each.double(), [5] * 4, mode="reflect") for each in (reconstruction, original))
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean((1, 2, 3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_ssim_equals_the_reference(shape: tuple[int, ...], noise: int, pair: Pair) -> None:
    reconstruction, original = pair(shape, noise)
    found = SSIM()(reconstruction, original)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, by_hand(reconstruction, original), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_ssim_equals_torchmetrics(shape: tuple[int, ...], noise: int, pair: Pair) -> None:
    reconstruction, original = pair(shape, noise)
    expected = structural_similarity_index_measure(
        reconstruction.double(),
        original.double(),
        gaussian_kernel=True,
        sigma=1.5,
        kernel_size=11,
        data_range=255.0,
        reduction="none",
    )
    found = SSIM()(reconstruction, original)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_ssim_of_flat_pictures_equals_the_hand_worked_value() -> None:
    # Without variance the second factor is 1; the first is (2 x y + c1) / (x^2 + y^2 + c1)
    # with c1 = 2.55^2 = 6.5025: (2 * 100 * 50 + 6.5025) / (100^2 + 50^2 + 6.5025).
    reconstruction = torch.full((1, 3, 12, 12), 100, dtype=torch.uint8)
    original = torch.full((1, 3, 12, 12), 50, dtype=torch.uint8)
    expected = (10_000 + 6.5025) / (12_500 + 6.5025)
    assert SSIM()(reconstruction, original).item() == pytest.approx(expected, abs=1e-12)


def test_an_image_counts_alone_whatever_else_is_in_the_batch(pair: Pair) -> None:
    reconstruction, original = pair((3, 3, 16, 16), 10)
    alone = [SSIM()(reconstruction[i : i + 1], original[i : i + 1]) for i in range(3)]
    assert torch.equal(SSIM()(reconstruction, original), torch.cat(alone))


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    small = torch.zeros(1, 3, 64, 10, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="ssim needs images of at least 11 px, these have 10"):
        SSIM()(small, small)


@pytest.mark.parametrize("size", [(64,), (16, 16, 16)])
def test_ssim_refuses_what_is_no_image(size: tuple[int, ...]) -> None:
    samples = torch.zeros(1, 3, *size, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=f"takes images, with 2 axes; these have {len(size)}"):
        SSIM()(samples, samples)


def test_anything_but_pairs_of_pixels_is_refused_at_run_time() -> None:
    # Without the checks that the tests switch on for every annotation, as in a training run.
    call = inspect.unwrap(SSIM.__call__)
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for wrong in (pixels.float(), pixels.long()):
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            call(SSIM(), wrong, pixels)
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            call(SSIM(), pixels, wrong)
    with pytest.raises(ValueError, match="one shape"):
        call(SSIM(), pixels, pixels[:, :1])  # would be broadcast


def test_anything_but_pixels_is_refused_by_the_annotations() -> None:
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(TypeError, match="UInt8"):
        SSIM()(pixels.float(), pixels.float())
