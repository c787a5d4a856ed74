"""The grid of an encoder that divides each axis."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError


class Clips(Encoder):
    """Clips of frames: 2 frames and 4 x 8 px a token."""

    out_channels = 1
    downsampling = (2, 4, 8)

    def forward(self, samples: Tensor) -> Tensor:
        """Keep one value of each token."""
        return samples[:, :1, ::2, ::4, ::8]


def test_each_axis_is_divided() -> None:
    encoder = Clips()
    assert encoder.grid((6, 8, 32)) == (3, 2, 4)
    assert encoder(torch.zeros(1, 1, 6, 8, 32)).shape[2:] == (3, 2, 4)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((5, 8, 33), "5 x 8 x 33 .* 2 x 4 x 8, .* do: 4 x 8 x 32 and 6 x 8 x 40"),
        ((0, 8, 8), "do: 2 x 8 x 8$"),
        ((8, 8), "takes samples of 3 axes besides the channels, got 8 x 8"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest(
    size: Sequence[int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Clips().grid(size)
