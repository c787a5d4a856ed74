"""How tensors lie in memory."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def channels_last(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Put the channels of images, and of the kernels of their convolutions, last in memory.

    Tensors of any other number of axes stay as they are.
    """
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)
