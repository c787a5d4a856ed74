"""A linear map of the channels against einsum, for any number of axes, and whitened by hand."""

import pytest
import torch

from vqtrain.layers.pointwise import RIDGE, Pointwise


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


def test_whitened_outputs_have_no_mean_and_the_covariance_that_the_ridge_leaves() -> None:
    layer = Pointwise(5, 3).double()
    # The outputs are on the axes of a rotated ellipsoid with variances of 9, 1 and 0, around 100.
    rotation = torch.linalg.qr(torch.randn(3, 3).double()).Q
    axes = torch.tensor([[3.0, 1, 0], [-3, 1, 0], [3, -1, 0], [-3, -1, 0]]).double() @ rotation.T
    x = torch.linalg.lstsq(layer.weight[:, :, 0, 0], (axes + 100 - layer.bias).T).solution.T
    x = x.T.reshape(1, 5, 2, 2).detach()
    whitened = layer.standardize(layer(x).detach(), 0.5, whiten=True)
    torch.testing.assert_close(layer(x).detach(), whitened)
    vectors = whitened[0].flatten(1).T
    torch.testing.assert_close(vectors.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-9)
    ridge = RIDGE * (9 + 1) / 3
    shares = torch.tensor([9 / (9 + ridge), 1 / (1 + ridge), 0], dtype=torch.float64)
    covariance = rotation @ (0.25 * shares).diag() @ rotation.T
    torch.testing.assert_close(vectors.T @ vectors / 4, covariance, rtol=0, atol=1e-9)


def test_scaled_outputs_have_no_mean_and_keep_their_directions() -> None:
    layer = Pointwise(1, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 7.0])[:, None, None, None])
        layer.bias.fill_(9.0)
    x = torch.tensor([[[5.0, 7.0]]]).double()
    # The outputs differ from their mean by (1, 7): a mean variance of 25, for which 10^2 is wanted.
    scaled = layer.standardize(layer(x).detach(), 10.0, whiten=False)
    expected = torch.tensor([[[-2.0, 2.0], [-14.0, 14.0]]]).double()
    torch.testing.assert_close(scaled, expected)
    torch.testing.assert_close(layer(x).detach(), expected)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("value", [0.0, 7.0, torch.nan, torch.inf])
def test_outputs_that_are_constant_or_not_finite_change_nothing(value: float, whiten: bool) -> None:
    layer = Pointwise(3, 2)
    before, z = layer.weight.clone(), torch.full((2, 2, 4), value)
    assert layer.standardize(z, 1.0, whiten=whiten) is z
    assert torch.equal(layer.weight, before)
