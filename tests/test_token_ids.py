"""Integers of any width become ids, and nothing else does."""

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.token_ids import as_token_ids


def test_integers_become_int64_and_are_compared_with_the_size_if_there_is_one() -> None:
    for dtype in (torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        ids = as_token_ids(torch.tensor([[0, 15]], dtype=dtype), 16)
        assert (ids.dtype, ids.tolist()) == (torch.int64, [[0, 15]])
        with pytest.raises(ConfigError, match="token ids must be from 0 to 14, got 0 to 15"):
            as_token_ids(ids.to(dtype), 15)
    assert as_token_ids(torch.tensor([-1])).tolist() == [-1]
    assert as_token_ids(torch.zeros(0, 4).int(), 16).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.complex64])
def test_what_is_no_integer_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=f"token ids must be integers, got {dtype}"):
        as_token_ids(torch.zeros(2, dtype=dtype))
