"""At least float32 where precision matters, even under autocast."""

from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# The precision of networks: float32, float32 with bfloat16 inside networks, float64.
PRECISIONS = ("32-true", "bf16-mixed", "64-true")


def at_least_float32(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Widen half precision to float32; float32 and float64 stay as they are."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def without_autocast(tensor: Shaped[Tensor, "*shape"]) -> AbstractContextManager[None]:
    """Return a context in which operations keep their inputs' precision on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)
