"""The patch discriminator of pix2pix and the VQGAN."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.discriminators.base import Discriminator
from vqtrain.discriminators.parts.patches import NORMS, PatchLayers
from vqtrain.ranges import at_least, checked, one_of


@final
class PatchGAN(Discriminator):
    """Classifies overlapping patches by strided convolutions; with three layers 70 x 70 px each.

    Args:
        in_channels: Channels of an image, at least 1.
        channels: Width after the first convolution, at least 1; it doubles in each layer, up to 8
            times.
        num_layers: Convolutions of stride 2, at least 1.
        norm: ``none``, ``group``, ``batch`` or ``spectral``. The statistics of ``batch`` are per
            batch and process, and ``spectral`` changes at each batch, so with these two a step
            depends on how it is split into batches.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Isola et al. 2017, arXiv:1611.07004, section 3.2; Esser et al. 2021, arXiv:2012.09841;
        Miyato et al. 2018, arXiv:1802.05957, for ``spectral``.
        Deviation: none with ``batch``, the papers' own.
    """

    axes = 2
    size_hint = "with discriminator.num_layers=1 it takes smaller images"
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
        self.layers = PatchLayers(
            in_channels=in_channels,
            channels=channels,
            kernel_size=4,
            strides=[(2, 2)] * num_layers + [(1, 1)],
            norm=norm,
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b 1 rows columns"]]:
        """Return one logit per patch of images in [-1, 1]: positive for real."""
        return [self.layers(samples)]
