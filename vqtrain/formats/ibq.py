"""Checkpoints of SEED-Voken's IBQ: index backpropagation quantization."""

from pathlib import Path

from vqtrain.formats.cnn import VECTORS, Table, about, assemble, averaged, drop
from vqtrain.formats.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer


def convert(path: Path, *, ema: bool = True) -> Tokenizer:
    """Convert an IBQ tokenizer of SEED-Voken.

    Args:
        path: A ``.ckpt`` file.
        ema: Averaged weights where the file has them, as in its evaluation, else the others.

    Raises:
        CheckpointError: If it cannot be read, or is another network.

    References:
        Shi et al. 2024, arXiv:2412.02692; SEED-Voken, src/IBQ/modules/vqvae/quantize.py.
    """
    weights = drop(read_weights(path), "loss.", "model_ema.loss", "colorize")
    with about(path):
        weights = averaged(weights, use=ema)
        arguments = {
            "index_weight": 1.0,
            "codebook_weight": 0.25,
            "commitment_weight": 1.0,
            "entropy_weight": 0.05,
            "entropy_temperature": 0.01,
        }
        names = [(VECTORS, "codebook.vectors")]
        return assemble(weights, Table(kind="ibq", arguments=arguments, names=names))
