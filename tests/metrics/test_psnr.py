"""PSNR against torchmetrics, scikit-image and values worked out by hand."""

import inspect
import math
from collections.abc import Callable

import pytest
import skimage.metrics
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from vqtrain.metrics.psnr import PSNR

Pair = Callable[..., tuple[Tensor, Tensor]]

SHAPES = [(3, 3, 32, 24), (2, 1, 11, 11), (2, 4, 11, 40)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_psnr_equals_torchmetrics(shape: tuple[int, ...], noise: int, pair: Pair) -> None:
    reconstruction, original = pair(shape, noise)
    expected = peak_signal_noise_ratio(
        reconstruction.double(),
        original.double(),
        data_range=255.0,
        reduction="none",
        dim=(1, 2, 3),
    )
    # torchmetrics takes its logarithm of 10 in float32, so eight digits are all it has.
    torch.testing.assert_close(PSNR()(reconstruction, original), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [3, 40])
def test_psnr_equals_scikit_image(shape: tuple[int, ...], noise: int, pair: Pair) -> None:
    reconstruction, original = pair(shape, noise)
    expected = [
        skimage.metrics.peak_signal_noise_ratio(true, test, data_range=255)
        for true, test in zip(original.numpy(), reconstruction.numpy(), strict=True)
    ]
    assert PSNR()(reconstruction, original).tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_equals_the_hand_worked_value() -> None:
    original = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    reconstruction = original.clone()
    reconstruction[0, 0, 0, 0] = 10  # mean square 100 / 4 = 25: 20 log10(255 / 5) = 20 log10(51)
    reconstruction[1] = 255  # 0 dB, the least there is
    expected = torch.tensor([20 * math.log10(51), 0.0, 100.0], dtype=torch.float64)
    torch.testing.assert_close(PSNR()(reconstruction, original), expected)


def test_psnr_does_not_wrap_around() -> None:
    # In uint8 arithmetic 0 - 255 would be 1, and PSNR 48 dB.
    black, white = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 255).byte()
    assert PSNR()(black, white).item() == PSNR()(white, black).item() == 0.0


@pytest.mark.parametrize("size", [(7,), (5, 3, 4)])
def test_samples_of_any_number_of_axes_are_compared(size: tuple[int, ...]) -> None:
    reconstruction, original = torch.randint(0, 256, (2, 3, 2, *size), dtype=torch.uint8)
    flat = [each.reshape(3, 2, -1, 1) for each in (reconstruction, original)]
    assert torch.equal(PSNR()(reconstruction, original), PSNR()(*flat))


def test_anything_but_pairs_of_pixels_is_refused_at_run_time() -> None:
    # Without the checks that the tests switch on for every annotation, as in a training run.
    call = inspect.unwrap(PSNR.__call__)
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for wrong in (pixels.float(), pixels.long()):
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            call(PSNR(), wrong, pixels)
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            call(PSNR(), pixels, wrong)
    with pytest.raises(ValueError, match="one shape"):
        call(PSNR(), pixels, pixels[:, :1])  # would be broadcast


def test_anything_but_pixels_is_refused_by_the_annotations() -> None:
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(TypeError, match="UInt8"):
        PSNR()(pixels.float(), pixels.float())
