"""The decoder of DC-AE, the deep compression autoencoder."""

from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.dcae import (
    ACTIVATIONS,
    Activation,
    DCStages,
    Norm,
    Stage,
    Up,
    build_blocks,
    check_stages,
    copied,
    first_stage,
    widths_of,
)
from vqtrain.layers.norm import RMSNorm
from vqtrain.layers.resampling import factors
from vqtrain.ranges import at_least, checked, one_of


@final
class DCAEDecoder(Decoder):
    """Blocks of linear attention, then residual blocks, with shortcuts around each doubling.

    Stages are counted from the full resolution, as in the encoder, so ``up_blocks.0`` comes last.

    Args:
        out_channels: Channels of the images, at least 1.
        upsample: ``pixel_shuffle`` turns channels into blocks of 2x2 pixels, ``interpolate``
            repeats pixels.
        norm: Of the residual blocks: ``rms``, or ``none`` for those whose batch normalization has
            become a part of their convolutions.
        activation: Of the residual blocks.
        output_activation: Before the last layer.
        **stages: See ``DCStages``.

    Raises:
        ConfigError: If a size is too small, or sizes do not fit each other.

    References:
        As of ``vqtrain.encoders.dcae``.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        upsample: Annotated[str, one_of("pixel_shuffle", "interpolate")],
        norm: Norm,
        activation: Activation,
        output_activation: Activation,
        **stages: Unpack[DCStages],
    ) -> None:
        super().__init__()
        check_stages(stages)
        widths, self.upsampling = widths_of(stages), factors(stages["multipliers"])
        self.in_channels, self.has_shortcut = stages["latent_channels"], stages["latent_shortcut"]
        self.channels, unfolds = widths[-1], upsample == "pixel_shuffle"
        self.activation = ACTIVATIONS[output_activation]
        self.conv_in = nn.Conv2d(self.in_channels, widths[-1], kernel_size=3, padding=1)
        self.up_blocks = nn.ModuleList()
        for stage, width in enumerate(widths):
            blocks = build_blocks(stage, norm=norm, activation=activation, **stages)
            if blocks and stage < len(widths) - 1:
                blocks.insert(0, Up(widths[stage + 1], width, unfolds=unfolds))
            self.up_blocks.append(Stage(*blocks) if blocks else nn.Identity())
        start = first_stage(stages)
        self.norm_out = RMSNorm(widths[start])
        self.conv_out = (
            nn.Conv2d(widths[start], out_channels, kernel_size=3, padding=1)
            if start == 0
            else Up(widths[start], out_channels, unfolds=unfolds, shortcut=False)
        )

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.conv_out.conv if isinstance(self.conv_out, Up) else self.conv_out

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        h = self.conv_in(z_q)
        h = h + copied(z_q, self.channels) if self.has_shortcut else h
        for stage in reversed(self.up_blocks):
            h = stage(h)
        return self.conv_out(self.activation(self.norm_out(h)))
