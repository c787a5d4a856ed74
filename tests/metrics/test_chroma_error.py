"""The chroma error against scikit-image, and values worked out by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.color
import torch
from einops import rearrange
from torch import Tensor

from vqtrain.metrics.chroma_error import ChromaError
from vqtrain.metrics.psnr import PSNR


def test_the_chroma_error_equals_scikit_images(pair: Callable[..., tuple[Tensor, Tensor]]) -> None:
    pixels = pair((3, 3, 32, 24), 40)
    first, second = (
        skimage.color.rgb2ycbcr(rearrange(each, "b c h w -> b h w c").numpy()) for each in pixels
    )
    # Its range is that of television, 224 levels.
    expected = np.abs(first - second)[..., 1:].mean(axis=(1, 2, 3)) * 255 / 224
    assert ChromaError()(*pixels).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_chroma_error_equals_the_hand_worked_value() -> None:
    original = torch.zeros(2, 3, 1, 2, dtype=torch.uint8)
    reconstruction = original.clone()
    # One of two pixels is blue: Y = 11.4, Cb = (100 - 11.4) / 1.772 = 50, Cr = -11.4 / 1.402.
    reconstruction[0, 2, 0, 0] = 100
    # White and black have the same chroma.
    reconstruction[1] = 255
    expected = torch.tensor([(50 + 11.4 / 1.402) / 4, 0], dtype=torch.float64)
    torch.testing.assert_close(ChromaError()(reconstruction, original), expected)


def test_a_gray_result_is_seen_where_psnr_sees_noise() -> None:
    """Gray has a better PSNR than noise of equal colors, and a far larger chroma error."""
    generator = torch.Generator().manual_seed(0)
    luma = torch.randint(40, 200, (1, 1, 16, 16), generator=generator)
    original = torch.cat([luma + 20, luma, luma - 20], dim=1).to(torch.uint8)
    gray = luma.expand(1, 3, 16, 16).to(torch.uint8)
    shift = torch.randint(-40, 41, (1, 1, 16, 16), generator=generator)
    noisy = (original + shift).clamp(0, 255).to(torch.uint8)
    assert PSNR()(gray, original) > PSNR()(noisy, original)
    assert ChromaError()(gray, original) > 10 > 1 > ChromaError()(noisy, original)
