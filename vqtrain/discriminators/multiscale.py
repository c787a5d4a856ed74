"""The multi-scale discriminator of pix2pixHD."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.discriminators.base import Discriminator
from vqtrain.discriminators.parts.patches import NORMS
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.ranges import at_least, checked, one_of


@final
class MultiScale(Discriminator):
    """Classifies patches of an image, of its half and of its quarter, each by a PatchGAN.

    Args:
        in_channels: Channels of an image, at least 1.
        channels: Of each PatchGAN, as its other arguments.
        num_layers: Convolutions of stride 2, at least 1.
        norm: ``none``, ``group``, ``batch`` or ``spectral``; ``batch`` and ``spectral`` depend on
            how a step is split into batches, see ``PatchGAN``.
        num_scales: Resolutions, each half of the one before, at least 1.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Wang et al. 2018, arXiv:1711.11585 (pix2pixHD), section 3.2.
        Deviation: the networks are those of pix2pix, with a padding of 1, where pix2pixHD pads by
            2, and without the biases that a norm undoes; there is no feature matching.
    """

    axes = 2
    size_hint = "with discriminator.num_layers=1 or .num_scales=1 it takes smaller images"
    batch_hint = PatchGAN.batch_hint

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        num_layers: Annotated[int, at_least(1)],
        norm: Annotated[str, one_of(*NORMS)],
        num_scales: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        scales = [
            PatchGAN(in_channels=in_channels, channels=channels, num_layers=num_layers, norm=norm)
            for _ in range(num_scales)
        ]
        self.scales = nn.ModuleList(scales)
        self.least_batch_size = scales[0].least_batch_size
        # Of a window that sticks out, the mean is over the pixels within the image.
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, samples: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b 1 rows columns"]]:
        """Return the logits of each scale, the finest first: positive for real."""
        logits = []
        for number, scale in enumerate(self.scales):
            if number > 0:
                samples = self.halve(samples)
            logits += scale(samples)
        return logits
