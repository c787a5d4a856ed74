"""Checkpoints of RQ-VAE: residual quantization with one codebook for all depths."""

from pathlib import Path
from typing import final

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import Table, about, assemble, count
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer

BOOK = "quantizer.codebooks."
NAMES = {
    "weight": "vectors",
    "cluster_size_ema": "average_counts",
    "embed_ema": "average_sums",
}
# Of its training there, but for restarts: here their threshold is a share of the mean count.
INNER = {
    "kind": "ema",
    "decay": 0.99,
    "commitment_weight": 0.25,
    "l2_normalize": False,
    "gradient": "straight_through",
    "kmeans_iterations": 0,
    "restart_below": 0.1,
    "sampling_temperature": 0.0,
}


@final
class RQVAE(Converter):
    """An RQ-VAE whose depths share one codebook, in the ``.pt`` file of its archive.

    References:
        Lee et al. 2022, arXiv:2203.01941; rq-vae-transformer, rqvae/models/rqvae, whose tables end
        with a row for padding, which no id means.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without the copies of its codebook and their last rows."""
        weights = read_weights(path)
        depths = range(max(1, count(weights, BOOK)))
        for depth in depths:
            name = f"{BOOK}{depth}.weight"
            if name in weights and weights[name].ndim:
                weights[name] = weights[name][:-1]
        table = Table(
            kind="residual",
            arguments={"num_codebooks": len(depths), "shared": True, "shrink": 1.0, "inner": INNER},
            names=[
                (f"{BOOK}0.{theirs}", f"codebook.levels.0.{own}") for theirs, own in NAMES.items()
            ],
            copies={
                f"{BOOK}{depth}.{part}": f"{BOOK}0.{part}" for depth in depths[1:] for part in NAMES
            },
        )
        with about(path):
            return assemble(weights, table)
