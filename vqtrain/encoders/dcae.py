"""The encoder of DC-AE, the deep compression autoencoder."""

from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.errors import require
from vqtrain.layers.dcae import (
    DCStages,
    Down,
    Stage,
    averaged,
    build_blocks,
    check_stages,
    first_stage,
    widths_of,
)
from vqtrain.layers.resampling import factors
from vqtrain.ranges import at_least, checked, one_of


@final
class DCAEEncoder(Encoder):
    """Residual blocks, then blocks of linear attention, with shortcuts around each halving.

    Args:
        in_channels: Channels of the images, at least 1.
        downsample: ``pixel_unshuffle`` turns blocks of 2x2 pixels into channels, ``conv`` is a
            convolution of stride 2.
        **stages: See ``DCStages``.

    Raises:
        ConfigError: If a size is too small, or sizes do not fit each other.

    References:
        Chen et al. 2024, arXiv:2410.10733. The parameters are named as in diffusers' code.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        downsample: Annotated[str, one_of("pixel_unshuffle", "conv")],
        **stages: Unpack[DCStages],
    ) -> None:
        super().__init__()
        check_stages(stages)
        widths, self.downsampling = widths_of(stages), factors(stages["multipliers"])
        self.out_channels, self.has_shortcut = stages["latent_channels"], stages["latent_shortcut"]
        require(
            downsample == "conv" or all(width % 4 == 0 for width in widths),
            f"downsample=pixel_unshuffle needs stages with a multiple of 4 channels, got {widths}",
        )
        folds, start = downsample == "pixel_unshuffle", first_stage(stages)
        self.conv_in = (
            nn.Conv2d(in_channels, widths[start], kernel_size=3, padding=1)
            if start == 0
            else Down(in_channels, widths[start], folds=folds, shortcut=False)
        )
        self.down_blocks = nn.ModuleList()
        for stage in range(len(widths)):
            blocks = build_blocks(stage, norm="rms", activation="silu", **stages)
            if blocks and stage < len(widths) - 1:
                blocks.append(Down(widths[stage], widths[stage + 1], folds=folds))
            self.down_blocks.append(Stage(*blocks) if blocks else nn.Identity())
        self.conv_out = nn.Conv2d(widths[-1], self.out_channels, kernel_size=3, padding=1)

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        h = self.conv_in(samples)
        for stage in self.down_blocks:
            h = stage(h)
        latents = self.conv_out(h)
        return latents + averaged(h, self.out_channels) if self.has_shortcut else latents
