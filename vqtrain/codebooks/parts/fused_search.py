"""Code search on a GPU in one kernel: scores of a tile are compared where they are made.

Needs Triton, which comes with torch for CUDA. For few channels the tiles of ``search`` spend their
time on writing scores to memory and reading them again; here they never leave the chip.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

VECTORS, KEYS = 64, 64


@triton.jit
def _best_kernel(  # type: ignore[no-untyped-def]  # pointers and numbers, by place
    z,  # noqa: ANN001
    keys,  # noqa: ANN001
    bias,  # noqa: ANN001
    found,  # noqa: ANN001
    n,  # noqa: ANN001
    k,  # noqa: ANN001
    d: tl.constexpr,
    has_bias: tl.constexpr,
    width: tl.constexpr,
    vectors: tl.constexpr,
    codes: tl.constexpr,
) -> None:
    """Find the best key of a block of vectors."""
    rows = tl.program_id(0) * vectors + tl.arange(0, vectors)
    channels = tl.arange(0, width)
    inside = (rows < n)[:, None] & (channels < d)[None, :]
    block = tl.load(z + rows[:, None] * d + channels[None, :], mask=inside, other=0.0)
    best_score = tl.full([vectors], float("-inf"), tl.float32)
    best_id = tl.zeros([vectors], tl.int64)
    for start in range(0, k, codes):
        columns = start + tl.arange(0, codes)
        known = columns < k
        tile = tl.load(
            keys + columns[None, :] * d + channels[:, None],
            mask=known[None, :] & (channels < d)[:, None],
            other=0.0,
        )
        # Not TF32: its 10 bits would confuse codes that float32 tells apart.
        scores = tl.dot(block, tile, input_precision="ieee")
        if has_bias:
            scores += tl.load(bias + columns, mask=known, other=0.0)[None, :]
        scores = tl.where(known[None, :], scores, float("-inf"))
        score, within = tl.max(scores, 1, return_indices=True)
        is_better = score > best_score
        best_id = tl.where(is_better, (start + within).to(tl.int64), best_id)
        best_score = tl.where(is_better, score, best_score)
    tl.store(found + rows, best_id, mask=rows < n)


def fused_best(
    z: Float[Tensor, "n d"], keys: Float[Tensor, "k d"], bias: Float[Tensor, " k"] | None
) -> Int64[Tensor, " n"]:
    """Do what ``search.best`` does, for float32 on one GPU.

    Scores are summed in another order than a matrix product does it: of two keys whose scores
    differ by rounding alone, either may win.
    """
    z, keys = z.contiguous(), keys.contiguous()
    found = torch.empty(z.shape[0], dtype=torch.int64, device=z.device)
    _best_kernel[(triton.cdiv(z.shape[0], VECTORS),)](
        z,
        keys,
        keys if bias is None else bias.contiguous(),
        found,
        z.shape[0],
        keys.shape[0],
        d=z.shape[1],
        has_bias=bias is not None,
        width=max(16, triton.next_power_of_2(z.shape[1])),
        vectors=VECTORS,
        codes=KEYS,
    )
    return found
