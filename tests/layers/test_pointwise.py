"""A linear map of the channels against einsum, for any number of axes."""

import pytest
import torch

from vqtrain.layers.pointwise import Pointwise


@pytest.mark.parametrize("grid", [(7,), (3, 5), (2, 3, 4)])
def test_each_position_is_mapped_by_itself(grid: tuple[int, ...]) -> None:
    layer, x = Pointwise(3, 5).double(), torch.randn(2, 3, *grid).double()
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    assert bias is not None
    expected = torch.einsum("oi,bi...->bo...", weight, x) + bias.reshape(-1, *(1,) * len(grid))
    torch.testing.assert_close(layer(x), expected)


def test_on_images_it_is_a_convolution_to_the_last_bit() -> None:
    layer, x = Pointwise(8, 4), torch.randn(2, 8, 6, 6)
    assert torch.equal(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias))
