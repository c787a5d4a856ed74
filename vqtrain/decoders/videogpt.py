"""The decoder of VideoGPT."""

from itertools import pairwise
from typing import Annotated, Unpack, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.axial import AxialSizes, Factors, SameTransposedConv, axial_blocks, strides
from vqtrain.ranges import at_least, checked


@final
class VideoGPTDecoder(Decoder):
    """Residual blocks with attention along each axis of a clip, then transposed 3D convolutions.

    Args:
        out_channels: Channels of the clips, at least 1.
        upsampling: Frames, rows and columns of a token, each a power of 2.
        **sizes: See ``AxialSizes``.

    Raises:
        ConfigError: If a size is too small, or ``upsampling`` is impossible.

    References:
        As of ``vqtrain.encoders.videogpt``.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        upsampling: Factors,
        **sizes: Unpack[AxialSizes],
    ) -> None:
        super().__init__()
        channels = sizes["channels"]
        self.in_channels, self.upsampling = channels, tuple(upsampling)
        self.blocks = axial_blocks(**sizes)
        steps = strides(upsampling)
        widths = pairwise([channels] * len(steps) + [out_channels])
        self.convts = nn.ModuleList(
            SameTransposedConv(before, after, 4, stride)
            for (before, after), stride in zip(widths, steps, strict=True)
        )

    @property
    def last_layer(self) -> nn.Module:
        """The transposed convolution that produces the pixels."""
        last = self.convts[-1]
        assert isinstance(last, SameTransposedConv), "the constructor makes it"
        return last.convt

    def forward(self, z_q: Float[Tensor, "b z t_z h_z w_z"]) -> Float[Tensor, "b c t h w"]:
        """Decode quantized latents into clips, about in [-1, 1] but not clamped to it."""
        h = self.blocks(z_q)
        for number, conv in enumerate(self.convts):
            h = conv(F.relu(h) if number else h)
        return h
