"""At least float32 where precision matters, even under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Shaped
from torch import Tensor

# The precision of networks: float32, float32 with bfloat16 or float16 inside networks, float64.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
# Of trained ones, whose weights may be narrow, too.
TRAINED_PRECISIONS = (*PRECISIONS, "bf16-true")
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

# What of a CPU computes in a type; torch.cpu.get_capabilities says what it has.
INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "avx10_2", "fp16_arith"),
}


def at_least_float32(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Widen half precision to float32; float32, float64 and integers stay as they are."""
    is_narrow = tensor.is_floating_point() and tensor.dtype.itemsize < 4
    return tensor.float() if is_narrow else tensor


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for half precision, and any other type itself."""
    return torch.promote_types(dtype, torch.float32)


def is_imitated(dtype: torch.dtype) -> bool:
    """Say whether this CPU lacks instructions for a type, so that torch imitates it slowly."""
    wanted = INSTRUCTIONS.get(dtype)
    if wanted is None or not hasattr(torch.cpu, "get_capabilities"):  # newer than torch itself
        return False
    there = torch.cpu.get_capabilities()
    return not any(there.get(name) for name in wanted)


def without_autocast(tensor: Shaped[Tensor, "*shape"]) -> AbstractContextManager[None]:
    """Return a context in which operations keep their inputs' precision on the tensor's device."""
    if tensor.is_meta:  # where autocast does not exist
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
