"""Checkpoints of rosinality's VQ-VAE-2."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, has, part, vote
from vqtrain.formats.parts.loading import BETA, Names, load
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer

# What each level is called there and here, in a codebook of its own.
LEVELS = {"t": "top", "b": "bottom"}
# Of its training there.
EMA = {
    "kind": "ema",
    "size": None,
    "decay": 0.99,
    "commitment_weight": BETA,
    "l2_normalize": False,
    "gradient": "straight_through",
    "kmeans_iterations": 0,
    "restart_below": 0.0,
    "sampling_temperature": 0.0,
}


@final
class VQVAE2(Converter):
    """A VQ-VAE-2 of two levels, in a ``.pt`` file.

    References:
        Razavi et al. 2019, arXiv:1906.00446; rosinality's vq-vae-2-pytorch, vqvae.py.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, with the averages that its codes follow."""
        weights = part(read_weights(path), "module.")  # of a process group's wrapper
        with about(path):
            return from_weights(weights)


def from_weights(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
    """Build the tokenizer of a state dict.

    Raises:
        CheckpointError: If it is another network.
    """
    tables = {
        name: item.T if name.endswith(("embed", "embed_avg")) and item.ndim == 2 else item
        for name, item in weights.items()
    }
    num_blocks = 0
    while has(tables, f"enc_b.blocks.{5 + num_blocks}.conv."):
        num_blocks += 1
    network = {
        "channels": vote(tables, (r"enc_b\.blocks\.[24]\.\w+", 0), (r"dec_?t?\.blocks\.0\.\w+", 0)),
        "block_channels": vote(tables, (r"\w+\.blocks\.\d\.conv\.1\.\w+", 0)),
        "num_blocks": num_blocks,
    }
    last = rf"dec\.blocks\.{num_blocks + 4}\."
    channels = vote(
        tables, (r"enc_b\.blocks\.0\.weight", 1), (rf"{last}weight", 1), (rf"{last}bias", 0)
    )
    dim = vote(tables, (r"quantize_.\.embed\w*", 1), (r"quantize_conv_.\.\w+", 0))
    size = vote(tables, (r"quantize_.\.(embed|embed_avg|cluster_size)", 0))
    return load(
        tables,
        module_names(num_blocks),
        encoder={
            "kind": "vqvae",
            "arguments": {**network, "num_downsamplings": 2, "in_channels": channels},
        },
        codebook={
            "kind": "hierarchical",
            "arguments": {**network, "size": size, "inner": {**EMA, "dim": dim}},
        },
        decoder={
            "kind": "vqvae",
            "arguments": {**network, "num_upsamplings": 2, "out_channels": channels},
        },
        channels=channels,
        projects=False,
    )


def module_names(num_blocks: int) -> Names:
    """List what modules are called there and here; the residual blocks first."""
    networks = {
        "enc_b.blocks.": ("encoder.layers.", 5),
        "enc_t.blocks.": ("codebook.encoder_top.", 3),
        "dec_t.blocks.": ("codebook.decoder_top.", 1),
        "dec.blocks.": ("decoder.layers.", 1),
    }
    blocks = [
        (f"{theirs}{first + number}.conv.{layer}.", f"{own}{first + number}.conv{index}.")
        for theirs, (own, first) in networks.items()
        for number in range(num_blocks)
        for index, layer in ((1, 1), (2, 3))
    ]
    levels = [
        (f"{theirs}_{short}{rest}", f"codebook.{own}{level}{more}")
        for short, level in LEVELS.items()
        for theirs, rest, own, more in (
            ("quantize_conv", ".", "to_", "."),
            ("quantize", ".embed_avg", "", ".average_sums"),
            ("quantize", ".embed", "", ".vectors"),
            ("quantize", ".cluster_size", "", ".average_counts"),
        )
    ]
    whole = [(theirs, own) for theirs, (own, _) in networks.items()]
    return [*blocks, *whole, *levels, ("upsample_t.", "codebook.upsample_top.")]
