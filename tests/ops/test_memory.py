"""Which tensors are laid out anew, and whose memory is used again."""

import ctypes
import resource

import pytest
import torch

from vqtrain.ops.memory import channels_last, give_back_freed_memory, keep_freed_memory


def test_images_and_kernels_have_their_channels_last() -> None:
    images = torch.randn(2, 3, 4, 5)
    found = channels_last(images)
    assert torch.equal(found, images)
    assert found.stride() == (60, 1, 15, 3)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (2, 3, 2, 4, 5)])
def test_tensors_of_other_axes_stay_as_they_are(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    assert channels_last(tensor) is tensor


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's allocator alone")
def test_memory_of_a_freed_tensor_is_used_again() -> None:
    keep_freed_memory()
    size = 64 * 2**20

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(size // 4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    new_pages()
    assert new_pages() < size // resource.getpagesize() // 10
    give_back_freed_memory()
    assert new_pages() > size // resource.getpagesize() // 2
