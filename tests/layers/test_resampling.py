"""Halving and doubling the resolution, with kernels that pick one pixel."""

import torch

from vqtrain.layers.resampling import Downsample, Upsample


def downsampled(x: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """What a kernel that is 1 at (row, column) makes of ``x``."""
    layer = Downsample(channels=1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, row, column] = 1.0
        layer.conv.bias.zero_()
        return layer(x)


def test_downsample_pads_on_the_right_and_below_only() -> None:
    x = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    assert torch.equal(downsampled(x, 0, 0), x[:, :, 0::2, 0::2])
    assert torch.equal(downsampled(x, 1, 1), x[:, :, 1::2, 1::2])
    # Rows and columns are 1 2 3 4 and a zero; the last tap of the windows at 0 and 2 is 2 and 4,
    # so it reads the pixel (2, 2), whose value is 11, and zeros elsewhere.
    assert torch.equal(downsampled(x, 2, 2), torch.tensor([[[[11.0, 0.0], [0.0, 0.0]]]]))


def test_upsample_repeats_pixels_before_it_convolves() -> None:
    layer = Upsample(channels=1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 1, 1] = 1.0
        layer.conv.bias.zero_()
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    expected = torch.kron(x[0, 0], torch.ones(2, 2))
    assert torch.equal(layer(x)[0, 0], expected)
    with torch.no_grad():
        layer.conv.weight.fill_(1.0)
    # At the first position the kernel sees 2 x 2 copies of pixel 0 and, around them, zeros.
    assert layer(x)[0, 0, 0, 0] == 0.0
    # At (1, 1): rows 0 0 1, columns 0 0 1, so 4 * x00 + 2 * x01 + 2 * x10 + x11 = 0 + 2 + 6 + 4.
    assert layer(x)[0, 0, 1, 1] == 12.0
