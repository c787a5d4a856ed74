"""The patch discriminator of clips, by three-dimensional convolutions."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.discriminators.base import Discriminator
from vqtrain.discriminators.parts.patches import NORMS, PatchLayers
from vqtrain.ranges import at_least, checked, one_of

# Convolutions that halve the number of frames, the first one included.
TIME_STRIDES = 2


@final
class PatchGAN3D(Discriminator):
    """Classifies overlapping patches of a clip by strided 3 x 3 x 3 convolutions.

    With three layers each patch is 31 frames of 47 x 47 px. A clip may be shorter and smaller than
    a patch: an image is a clip of one frame.

    Args:
        in_channels: Channels of a clip, at least 1.
        channels: Width after the first convolution, at least 1; it doubles in each layer, up to 8
            times.
        num_layers: Convolutions that halve height and width, at least 1; the first two of them
            halve the number of frames, too.
        norm: ``none``, ``group``, ``batch`` or ``spectral``; ``batch`` and ``spectral`` depend on
            how a step is split into batches, see ``PatchGAN``.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Isola et al. 2017, arXiv:1611.07004, section 3.2, in three dimensions as in the code of Luo
        et al. 2024, arXiv:2409.04410 (Open-MAGVIT2), for video.
        Deviation: none with ``batch``.
    """

    axes = 3
    batch_hint = "discriminator.norm=group takes any"

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        num_layers: Annotated[int, at_least(1)],
        norm: Annotated[str, one_of(*NORMS)],
    ) -> None:
        super().__init__()
        self.least_batch_size = 2 if norm == "batch" else 1
        strides = [(2 if layer < TIME_STRIDES else 1, 2, 2) for layer in range(num_layers)]
        self.layers = PatchLayers(
            in_channels=in_channels,
            channels=channels,
            kernel_size=3,
            strides=[*strides, (1, 1, 1)],
            norm=norm,
        )

    def forward(
        self, samples: Float[Tensor, "b c t h w"]
    ) -> list[Float[Tensor, "b 1 frames rows columns"]]:
        """Return one logit per patch of clips in [-1, 1]: positive for real."""
        return [self.layers(samples)]
