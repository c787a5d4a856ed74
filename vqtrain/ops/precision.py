"""At least float32 where precision matters, even under autocast."""

from contextlib import AbstractContextManager

import torch
from jaxtyping import Shaped
from torch import Tensor

# The precision of networks: float32, float32 with bfloat16 or float16 inside networks, float64.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


def at_least_float32(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Widen half precision to float32; float32, float64 and integers stay as they are."""
    is_narrow = tensor.is_floating_point() and tensor.dtype.itemsize < 4
    return tensor.float() if is_narrow else tensor


def without_autocast(tensor: Shaped[Tensor, "*shape"]) -> AbstractContextManager[None]:
    """Return a context in which operations keep their inputs' precision on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)
