"""The patch discriminator of clips, by three-dimensional convolutions."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vqtrain.discriminators.base import Discriminator
from vqtrain.discriminators.patchgan import NORMS, batch_norm
from vqtrain.ranges import at_least, checked, one_of

Strides = tuple[int, int, int]
NORMS_3D: dict[str, Callable[[int], nn.Module]] = {
    **NORMS,
    "batch": partial(batch_norm, kind=nn.BatchNorm3d),
}
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
        norm: Annotated[str, one_of(*NORMS_3D)],
    ) -> None:
        super().__init__()
        self.norm = norm
        self.least_batch_size = 2 if norm == "batch" else 1
        has_bias = norm in ("none", "spectral")  # else the norm undoes it, as in ``PatchGAN``
        widths = [channels * min(2**layer, 8) for layer in range(num_layers + 1)]
        layers = [self.convolution(in_channels, widths[0], stride=(2, 2, 2)), nn.LeakyReLU(0.2)]
        for layer in range(1, num_layers + 1):
            space = 2 if layer < num_layers else 1
            stride = (space if layer < TIME_STRIDES else 1, space, space)
            layers += [
                self.convolution(widths[layer - 1], widths[layer], stride=stride, bias=has_bias),
                NORMS_3D[norm](widths[layer]),
                nn.LeakyReLU(0.2),
            ]
        layers.append(self.convolution(widths[-1], 1, stride=(1, 1, 1)))
        self.layers = nn.Sequential(*layers)

    def convolution(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: tuple[int, int, int],
        bias: bool = True,
    ) -> nn.Module:
        """Build a 3 x 3 x 3 convolution with the papers' initial weights."""
        layer = nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=bias)
        nn.init.normal_(layer.weight, 0.0, 0.02)
        return spectral_norm(layer) if self.norm == "spectral" else layer

    def forward(
        self, samples: Float[Tensor, "b c t h w"]
    ) -> list[Float[Tensor, "b 1 frames rows columns"]]:
        """Return one logit per patch of clips in [-1, 1]: positive for real."""
        return [self.layers(samples)]
