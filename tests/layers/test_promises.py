"""What contracts of networks have in common, on networks that break it."""

import pytest
import torch
from torch import nn

from vqtrain.errors import ConfigError
from vqtrain.layers.promises import check_factors, check_gradients, check_result


@pytest.mark.parametrize("factors", [4, [4, 4], (0, 4), (2.0,), None])
def test_factors_are_whole_numbers_of_each_axis(factors: object) -> None:
    check_factors("downsampling", (4, 8))
    with pytest.raises(ConfigError, match="downsampling must be a tuple of whole numbers"):
        check_factors("downsampling", factors)


def test_a_result_has_its_shape_and_dtype_and_repeats_itself() -> None:
    result = torch.zeros(2, 3)
    check_result("latents", result, (2, 3), torch.float32, again=result)
    for shape, dtype in (((2, 4), torch.float32), ((2, 3), torch.float64)):
        with pytest.raises(ConfigError, match="latents must be"):
            check_result("latents", result, shape, dtype, again=result)
    with pytest.raises(ConfigError, match="must be the same for the same input"):
        check_result("latents", result, (2, 3), torch.float32, again=result + 1)


def test_a_parameter_that_gets_no_gradient_is_named() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    module[1].requires_grad_(False)
    with pytest.raises(ConfigError, match=r"parameter 0\.weight gets no gradient"):
        check_gradients(module)
    module(torch.ones(1, 1)).sum().backward()
    check_gradients(module)
