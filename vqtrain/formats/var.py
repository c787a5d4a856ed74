"""Checkpoints of VAR: its multi-scale image tokenizer."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import VECTORS, Table, about, assemble, drop
from vqtrain.formats.parts.loading import Names
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer

SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
# How often training used each code at each scale.
HITS = "quantize.ema_vocab_hit_SV"
NUM_CONVOLUTIONS = 4
# Of its training there: a convolution has half the weight.
ARGUMENTS = {
    "num_convolutions": NUM_CONVOLUTIONS,
    "convolution_share": 0.5,
    "convolution_weight": 1.0,
    "inner": {
        "kind": "vq",
        **PLAIN,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "straight_through",
    },
}
ATTENTION = re.compile(r".+\.attn(\.\d+|_1)\.")


@final
class VAR(Converter):
    """The image tokenizer of VAR, in a ``.pth`` file.

    Args:
        scales: Sides of the grids, which the file does not say; the default is that for 256 px.

    References:
        Tian et al. 2024, arXiv:2404.02905; VAR, models/vqvae.py and models/quant.py.
        Deviation: codes go on training from what the coarser scales have left, see ``multiscale``.
    """

    def __init__(self, *, scales: Sequence[int] = SCALES) -> None:
        self.scales = list(scales)

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without the use of codes that its training counted."""
        weights = drop(read_weights(path), HITS)
        table = Table(
            kind="multiscale",
            arguments={**ARGUMENTS, "scales": self.scales},
            names=[(VECTORS, "codebook.codebook.vectors")],
        )
        with about(path):
            return assemble(weights, table, module_names(weights))


def module_names(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Names:
    """List what modules are called there and here; there one layer is queries, keys and values."""
    names = [
        (f"quantize.quant_resi.qresi_ls.{number}.", f"codebook.convolutions.{number}.")
        for number in range(NUM_CONVOLUTIONS)
    ]
    found = {match[0]: None for name in weights if (match := ATTENTION.match(name))}
    return names + [
        (f"{attention}qkv.", f"{attention}{part}.") for attention in found for part in "qkv"
    ]
