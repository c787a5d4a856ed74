"""The encoder of VideoGPT."""

from itertools import pairwise
from typing import Annotated, Unpack, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.axial import AxialSizes, Factors, SameConv, axial_blocks, strides
from vqtrain.ranges import at_least, checked


@final
class VideoGPTEncoder(Encoder):
    """Strided 3D convolutions, then residual blocks with attention along each axis of a clip.

    Args:
        in_channels: Channels of the clips, at least 1.
        downsampling: Frames, rows and columns of a token, each a power of 2.
        **sizes: See ``AxialSizes``.

    Raises:
        ConfigError: If a size is too small, or ``downsampling`` is impossible.

    References:
        Yan et al. 2021, arXiv:2104.10157, section 3.1 and its code. Batch norms are over all ranks,
        which is an option there.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        downsampling: Factors,
        **sizes: Unpack[AxialSizes],
    ) -> None:
        super().__init__()
        channels = sizes["channels"]
        self.out_channels, self.downsampling = channels, tuple(downsampling)
        steps = strides(downsampling)
        widths = pairwise([in_channels, *[channels] * len(steps)])
        self.convs = nn.ModuleList(
            SameConv(before, after, 4, stride)
            for (before, after), stride in zip(widths, steps, strict=True)
        )
        self.conv_last = SameConv(channels, channels, 3)
        self.blocks = axial_blocks(**sizes)

    def forward(self, samples: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b z t_z h_z w_z"]:
        """Encode clips in [-1, 1]."""
        h = samples
        for conv in self.convs:
            h = F.relu(conv(h))
        return self.blocks(self.conv_last(h))
