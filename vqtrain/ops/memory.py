"""Memory layout of tensors."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def channels_last(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Put the channels of images and of their convolution kernels last in memory.

    Tensors of any other number of axes stay as they are.
    """
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)
