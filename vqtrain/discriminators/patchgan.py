"""The patch discriminator of pix2pix and the VQGAN."""

from collections.abc import Callable
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vqtrain.discriminators.base import Discriminator
from vqtrain.layers.norm import group_norm
from vqtrain.ranges import at_least, checked, one_of


def batch_norm(
    channels: int, kind: type[nn.BatchNorm2d | nn.BatchNorm3d] = nn.BatchNorm2d
) -> nn.Module:
    """Build a batch normalization without running statistics, as it is always in training mode."""
    norm = kind(channels, track_running_stats=False)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


def identity(channels: int) -> nn.Module:
    """Build no normalization."""
    del channels
    return nn.Identity()


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": identity,
    "group": group_norm,
    "batch": batch_norm,
    "spectral": identity,  # spectral normalization is part of the convolutions
}


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
        self.norm = norm
        self.least_batch_size = 2 if norm == "batch" else 1
        # Normalization over a batch undoes a bias, and that over a group of channels all of it but
        # the differences within the group, which the norm's own bias can make.
        has_bias = norm in ("none", "spectral")
        widths = [channels * min(2**layer, 8) for layer in range(num_layers + 1)]
        layers = [self.convolution(in_channels, widths[0], stride=2), nn.LeakyReLU(0.2)]
        for layer in range(1, num_layers + 1):
            stride = 2 if layer < num_layers else 1
            layers += [
                self.convolution(widths[layer - 1], widths[layer], stride=stride, bias=has_bias),
                NORMS[norm](widths[layer]),
                nn.LeakyReLU(0.2),
            ]
        layers.append(self.convolution(widths[-1], 1, stride=1))
        self.layers = nn.Sequential(*layers)

    def convolution(
        self, in_channels: int, out_channels: int, *, stride: int, bias: bool = True
    ) -> nn.Module:
        """Build a 4 x 4 convolution with the papers' initial weights."""
        layer = nn.Conv2d(in_channels, out_channels, 4, stride=stride, padding=1, bias=bias)
        nn.init.normal_(layer.weight, 0.0, 0.02)
        return spectral_norm(layer) if self.norm == "spectral" else layer

    def forward(self, samples: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b 1 rows columns"]]:
        """Return one logit per patch of images in [-1, 1]: positive for real."""
        return [self.layers(samples)]
