"""diffusers' ``AutoencoderKL``: the autoencoders of Stable Diffusion and FLUX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.diffusers import CNNSettings, Scale, Shift, load, rescale, their_name
from vqtrain.tokenizer.model import Tokenizer

CLASS = "AutoencoderKL"


@dataclass(frozen=True, kw_only=True)
class KLSettings(CNNSettings):
    """What an ``AutoencoderKL`` says.

    Diffusion models take (z - shift) * scale, where the shift is ``latents_mean`` or
    ``shift_factor``, and the scale ``scaling_factor`` or that divided by ``latents_std``.
    """

    latent_channels: int = 4
    sample_size: int | Sequence[int] | None = 32
    shift_factor: Shift | None = None
    latents_mean: Sequence[Shift] | None = None
    latents_std: Sequence[Scale] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    def build(self) -> Tokenizer:
        """Build a tokenizer, with weights that are still to be loaded."""
        codebook = {"size": None, "dim": self.latent_channels, "kl_weight": 1e-6}
        z = self.latent_channels
        return self.tokenizer("kl", codebook, moments=2 * z, latents=z)

    def their_name(self, name: str) -> str | None:
        """Return their name of a weight of ours; newer models have no projections."""
        there = {"project_in": self.use_quant_conv, "project_out": self.use_post_quant_conv}
        there["codebook"] = False
        is_there = there.get(name.partition(".")[0], True)
        return their_name(name, len(self.block_out_channels)) if is_there else None

    @property
    def shift(self) -> list[float]:
        """What is subtracted from each channel of the latents."""
        return list(self.latents_mean or [self.shift_factor or 0.0] * self.latent_channels)

    @property
    def scale(self) -> list[float]:
        """What each channel is multiplied by then."""
        deviations = self.latents_std or [1.0] * self.latent_channels
        return [self.scaling_factor / deviation for deviation in deviations]


@final
class AutoencoderKL(Converter):
    """A directory of diffusers' ``AutoencoderKL``: ``cnn`` networks around means and variances.

    Latents are scaled and shifted as diffusion models take them.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Read an ``AutoencoderKL``."""
        settings, tokenizer = load(path, CLASS, KLSettings)
        rescale(tokenizer, settings.shift, settings.scale)
        return tokenizer
