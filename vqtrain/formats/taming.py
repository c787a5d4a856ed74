"""Checkpoints of taming-transformers: the VQGAN and its Gumbel variant."""

from pathlib import Path
from typing import final

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, drop, part
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.taming import from_weights
from vqtrain.tokenizer.model import Tokenizer


@final
class Taming(Converter):
    """A VQGAN or Gumbel VQGAN of taming-transformers, in a ``.ckpt`` file.

    A model of that project with a transformer holds such a network too, which is taken out of it.

    Args:
        legacy: The codebook's loss weighs commitment 1 and codes 0.25, as that code does by
            default; false exchanges the weights.

    References:
        Esser et al. 2021, arXiv:2012.09841; taming-transformers, modules/vqvae/quantize.py.
        Deviation: with a remap file, tokens whose nearest code is not in use get the nearest one
        that is, not a random one.
    """

    def __init__(self, *, legacy: bool = True) -> None:
        self.legacy = legacy

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without its transformer and its losses."""
        weights = drop(part(read_weights(path), "first_stage_model."), "loss.", "colorize")
        with about(path):
            return from_weights(weights, legacy=self.legacy)
