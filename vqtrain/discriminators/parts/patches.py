"""The layers of patch discriminators, of images and of clips."""

from collections.abc import Sequence
from typing import final

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from vqtrain.layers.norm import group_norm

NORMS = ("none", "group", "batch", "spectral")
CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@final
class PatchLayers(nn.Sequential):
    """Strided convolutions with leaky ReLUs, from samples to a map of logits.

    They start with the weights of pix2pix. The width doubles from layer to layer, up to 8 times.

    Args:
        in_channels: Channels of a sample.
        channels: Width after the first convolution.
        kernel_size: Of all convolutions, along each axis; each pads by 1.
        strides: Of the convolutions along each axis, but for the last one, whose strides are 1.
        norm: Of ``NORMS``, after all but the first and the last convolution.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        kernel_size: int,
        strides: Sequence[tuple[int, ...]],
        norm: str,
    ) -> None:
        axes, last = len(strides[0]), len(strides) - 1
        widths = [channels * min(2**layer, 8) for layer in range(len(strides))]
        # Normalization over a batch undoes a bias, and that over a group of channels all of it but
        # the differences within the group, which the norm's own bias can make.
        has_bias = norm in ("none", "spectral")
        layers: list[nn.Module] = []

        def convolve(before: int, after: int, stride: tuple[int, ...], *, bias: bool) -> None:
            layer = CONVOLUTIONS[axes](
                before,
                after,
                kernel_size,
                stride=stride,  # type: ignore[arg-type]  # as many as there are axes
                padding=1,
                bias=bias,
            )
            nn.init.normal_(layer.weight, 0.0, 0.02)
            layers.append(spectral_norm(layer) if norm == "spectral" else layer)

        for layer, stride in enumerate(strides):
            before = widths[layer - 1] if layer else in_channels
            convolve(before, widths[layer], stride, bias=has_bias or not layer)
            if layer:
                layers.append(normalization(norm, widths[layer], axes))
            layers.append(nn.LeakyReLU(0.2))
        convolve(widths[last], 1, (1,) * axes, bias=True)
        super().__init__(*layers)


def normalization(norm: str, channels: int, axes: int) -> nn.Module:
    """Build one of the ``NORMS``."""
    if norm == "group":
        return group_norm(channels)
    if norm != "batch":  # spectral normalization is part of the convolutions
        return nn.Identity()
    # Without running statistics, as it is always in training mode.
    layer = BATCH_NORMS[axes](channels, track_running_stats=False)
    nn.init.normal_(layer.weight, 1.0, 0.02)
    return layer
