"""Which tensors are laid out anew, and whose memory is used again."""

import ctypes
import resource
import subprocess
import sys

import pytest
import torch

from vqtrain.ops.memory import channels_last


def test_images_and_kernels_have_their_channels_last() -> None:
    images = torch.randn(2, 3, 4, 5)
    found = channels_last(images)
    assert torch.equal(found, images)
    assert found.stride() == (60, 1, 15, 3)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (2, 3, 2, 4, 5)])
def test_tensors_of_other_axes_stay_as_they_are(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    assert channels_last(tensor) is tensor


PAGES = """
import resource

import torch

from vqtrain.ops.memory import give_back_freed_memory, keep_freed_memory


def new_pages(numbers=2**24) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(numbers)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


keep_freed_memory()
new_pages(2**25)  # more, as aligned memory is searched with room to spare
kept = new_pages()
give_back_freed_memory()
print(kept, new_pages())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's allocator alone")
def test_memory_of_a_freed_tensor_is_used_again() -> None:
    # A process of its own: where an allocation has failed once, glibc takes memory from elsewhere.
    words = [sys.executable, "-c", PAGES]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    kept, given_back = map(int, printed.split())
    pages = 2**26 // resource.getpagesize()
    assert kept < pages // 10
    assert given_back > pages // 2
