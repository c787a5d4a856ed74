"""MS-SSIM against a reference written by hand, and values worked out by hand."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from vqtrain.errors import ConfigError
from vqtrain.metrics.ms_ssim import MSSSIM

Pair = Callable[..., tuple[Tensor, Tensor]]


@pytest.mark.parametrize("shape", [(2, 3, 176, 192), (1, 1, 177, 200)])
@pytest.mark.parametrize("noise", [3, 90])
def test_ms_ssim_equals_torchmetrics(shape: tuple[int, ...], noise: int, pair: Pair) -> None:
    reconstruction, original = pair(shape, noise)
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
    found = MSSSIM()(reconstruction, original)
    assert found.dtype == torch.float64
    # The exponents of torchmetrics are float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_ms_ssim_of_flat_pictures_equals_the_hand_worked_value() -> None:
    # Only the coarsest scale sees that one is darker: (10,000 + c1) / (12,500 + c1) to its weight.
    reconstruction = torch.full((1, 3, 176, 176), 100, dtype=torch.uint8)
    original = torch.full((1, 3, 176, 176), 50, dtype=torch.uint8)
    expected = ((10_000 + 6.5025) / (12_500 + 6.5025)) ** 0.1333
    # The exponents of torchmetrics are float32.
    assert MSSSIM()(reconstruction, original).item() == pytest.approx(expected, abs=1e-8)


def test_ms_ssim_of_a_negative_is_0_and_not_nan(pair: Pair) -> None:
    _, original = pair((1, 1, 176, 176), 3)
    assert MSSSIM()(255 - original, original).item() == 0.0


def test_ms_ssim_refuses_images_whose_coarsest_scale_is_smaller_than_its_window() -> None:
    small = torch.zeros(1, 3, 200, 175, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="needs images of at least 176 px, these have 175"):
        MSSSIM()(small, small)


def test_anything_but_pairs_of_pixels_is_refused_at_run_time() -> None:
    # Without the checks that the tests switch on for every annotation, as in a training run.
    call = inspect.unwrap(MSSSIM.__call__)
    pixels = torch.zeros(1, 3, 176, 176, dtype=torch.uint8)
    for wrong in (pixels.float(), pixels.long()):
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            call(MSSSIM(), wrong, pixels)
        with pytest.raises(TypeError, match=rf"uint8 pixels, got {wrong.dtype}"):
            call(MSSSIM(), pixels, wrong)
    with pytest.raises(ValueError, match="one shape"):
        call(MSSSIM(), pixels, pixels[:, :1])  # would be broadcast


def test_anything_but_pixels_is_refused_by_the_annotations() -> None:
    pixels = torch.zeros(1, 3, 176, 176, dtype=torch.uint8)
    with pytest.raises(TypeError, match="UInt8"):
        MSSSIM()(pixels.float(), pixels.float())
