"""Memory of tensors: their layout, and what becomes of it when they are freed."""

import ctypes

import torch
from jaxtyping import Shaped
from torch import Tensor

# Parameters of mallopt, from malloc.h: bytes from which on memory is mapped, and bytes at the end
# of the heap from which on they are given back; -1 for never.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_GLIBC = ctypes.CDLL(None) if hasattr(ctypes.CDLL(None), "malloc_trim") else None


def channels_last(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Put the channels of images and of their convolution kernels last in memory.

    Tensors of any other number of axes stay as they are.
    """
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones, in this process and its forks.

    glibc maps large tensors anew each time, and the system clears their pages: for networks on a
    CPU up to half of the time, by batches of images of 256 px. Other C libraries are left alone.
    """
    if _GLIBC is not None:
        _GLIBC.mallopt(_MMAP_THRESHOLD, 2**30)
        _GLIBC.mallopt(_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Give the memory of freed tensors back to the system; a fork would hold a copy of it."""
    if _GLIBC is not None:
        _GLIBC.malloc_trim(0)
