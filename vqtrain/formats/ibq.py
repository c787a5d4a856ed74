"""Checkpoints of SEED-Voken's IBQ: index backpropagation quantization."""

from pathlib import Path
from typing import final

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import VECTORS, Table, about, assemble, averaged, drop
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer

# Of its training there.
ARGUMENTS = {
    "index_weight": 1.0,
    "codebook_weight": 0.25,
    "commitment_weight": 1.0,
    "entropy_weight": 0.05,
    "entropy_temperature": 0.01,
}


@final
class IBQ(Converter):
    """An IBQ tokenizer of SEED-Voken, in a ``.ckpt`` file.

    Args:
        ema: Averaged weights where the file has them, as in its evaluation, else the others.

    References:
        Shi et al. 2024, arXiv:2412.02692; SEED-Voken, src/IBQ/modules/vqvae/quantize.py.
    """

    def __init__(self, *, ema: bool = True) -> None:
        self.ema = ema

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without its losses."""
        weights = drop(read_weights(path), "loss.", "model_ema.loss", "colorize")
        table = Table(kind="ibq", arguments=ARGUMENTS, names=[(VECTORS, "codebook.vectors")])
        with about(path):
            return assemble(averaged(weights, use=self.ema), table)
