"""Checkpoints of latent-diffusion: the first stages with a codebook (VQModel)."""

from pathlib import Path
from typing import final

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, averaged, drop, part
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.taming import from_weights
from vqtrain.tokenizer.model import Tokenizer


@final
class LatentDiffusion(Converter):
    """A first stage with a codebook of latent-diffusion, vq-f4 to vq-f16, in a ``.ckpt`` file.

    A whole diffusion model holds such a network too, which is taken out of it.

    Args:
        ema: Averaged weights where the file has them, else the others.

    References:
        Rombach et al. 2022, arXiv:2112.10752; latent-diffusion, ldm/models/autoencoder.py, whose
        codebook is that of taming-transformers with its default loss.
    """

    def __init__(self, *, ema: bool = True) -> None:
        self.ema = ema

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without what surrounds it and its losses."""
        weights = part(read_weights(path), "first_stage_model.")
        with about(path):
            kept = drop(weights, "loss.", "model_ema.loss", "colorize")
            return from_weights(averaged(kept, use=self.ema), legacy=True)
