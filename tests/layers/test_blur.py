"""The blur against its weighted sum, written out."""

import pytest
import torch

from vqtrain.layers.blur import Blur


@pytest.mark.parametrize(("stride", "padding"), [(1, 2), (2, 1)])
def test_a_value_is_the_weighted_sum_of_its_neighborhood(stride: int, padding: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    y = Blur(stride=stride, padding=padding).double()(x)
    assert y.shape[2:] == tuple((side + 2 * padding - 4) // stride + 1 for side in (7, 6))
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            expected = torch.zeros(2, 3, dtype=torch.float64)
            for i, weight in enumerate((1, 3, 3, 1)):
                for j, other in enumerate((1, 3, 3, 1)):
                    a, b = row * stride + i - padding, column * stride + j - padding
                    if 0 <= a < 7 and 0 <= b < 6:  # zeros elsewhere
                        expected += weight * other / 64 * x[:, :, a, b]
            torch.testing.assert_close(y[:, :, row, column], expected)


def test_it_has_no_weights() -> None:
    assert not Blur(stride=1, padding=2).state_dict()
