"""Checkpoints of latent-diffusion: the first stages with a codebook (VQModel)."""

from pathlib import Path

from vqtrain.formats.cnn import about, averaged, drop, part
from vqtrain.formats.pickles import read_weights
from vqtrain.formats.taming import from_weights
from vqtrain.tokenizer.model import Tokenizer


def convert(path: Path, *, ema: bool = True) -> Tokenizer:
    """Convert a first stage with a codebook of latent-diffusion, vq-f4 to vq-f16.

    A whole diffusion model holds such a network too, which is taken out of it.

    Args:
        path: A ``.ckpt`` file.
        ema: Averaged weights where the file has them, else the others.

    Raises:
        CheckpointError: If it cannot be read, or is another network.

    References:
        Rombach et al. 2022, arXiv:2112.10752; latent-diffusion, ldm/models/autoencoder.py, whose
        codebook is that of taming-transformers with its default loss.
    """
    weights = part(read_weights(path), "first_stage_model.")
    with about(path):
        kept = drop(weights, "loss.", "model_ema.loss", "colorize")
        return from_weights(averaged(kept, use=ema), legacy=True)
