"""A rectifier of quantized latents, and the decoder that they were made for."""

from collections.abc import Mapping, Sequence
from typing import Annotated, cast, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.build import build_part, in_context, split_kind
from vqtrain.decoders.base import Decoder
from vqtrain.errors import require
from vqtrain.layers.pointwise import Pointwise
from vqtrain.ranges import at_least, checked


@final
class RectifiedDecoder(Decoder):
    """Rectifies quantized latents of a continuous autoencoder, then decodes them as it does.

    Args:
        out_channels: Channels of the samples, at least 1.
        sample_size: Of the axes of a sample; None if the inner decoder does not ask for it.
        latent_channels: Channels of the latents that are rectified, at least 1.
        rectifier: The decoder of latents into latents: ``kind`` and its arguments.
        inner: The decoder of latents into samples: ``kind`` and its arguments. A linear map of
            the channels is between the two.

    Raises:
        ConfigError: If one of the two cannot be built.

    References:
        Zhang et al. 2025, arXiv:2507.10547.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int] | None,
        latent_channels: Annotated[int, at_least(1)],
        rectifier: Mapping[str, object],
        inner: Mapping[str, object],
    ) -> None:
        super().__init__()
        self.rectifier = _build("rectifier", rectifier, {"out_channels": latent_channels})
        context = {"out_channels": out_channels, "sample_size": sample_size}
        self.inner = _build("inner", inner, context)
        self.between = Pointwise(latent_channels, self.inner.in_channels)
        self.in_channels = self.rectifier.in_channels
        self.upsampling = tuple(
            a * b for a, b in zip(self.rectifier.upsampling, self.inner.upsampling, strict=True)
        )
        self.extra_channels, self.sample_size = self.inner.extra_channels, self.inner.sample_size

    @property
    def last_layer(self) -> nn.Module:
        """That of the inner decoder."""
        return self.inner.last_layer

    def forward(self, z_q: Float[Tensor, "b z *grid"]) -> Float[Tensor, "b c *size"]:
        """Rectify quantized latents, then decode them into samples."""
        return self.inner(self.between(self.rectifier(z_q)))

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step of the inner decoder."""
        self.inner.begin_step(step, seed)

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the sample that a grid of latents is decoded into."""
        return self.inner.size(self.rectifier.size(grid))


def _build(
    where: str, specification: Mapping[str, object], context: Mapping[str, object]
) -> Decoder:
    """Build one of the two, whose key is ``where``."""
    kind = specification.get("kind")
    require(isinstance(kind, str), f"{where}.kind must be the word of a decoder, got {kind!r}")
    part = in_context("decoder", split_kind(specification), context, where=where)
    return cast(Decoder, build_part("decoder", part, where=where))
