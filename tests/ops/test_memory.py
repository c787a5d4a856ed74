"""Which tensors are laid out anew."""

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
