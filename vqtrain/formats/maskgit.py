"""Checkpoints of MaskGIT's tokenizer, and of those of MaskBit: VQGAN+ and LFQ."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import VECTORS, about, count, has, vote, vq
from vqtrain.formats.parts.convolutional import SAME, lfq, sizes
from vqtrain.formats.parts.loading import BETA, Names, load, renamed, stretched
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer

# All codes of a codebook of signs, and what makes ids of bits: neither is learned.
SIGNS, POWERS = "quantize.codebook", "quantize.bits_to_indices"


@final
class MaskGIT(Converter):
    """MaskGIT's tokenizer as 1d-tokenizer has it, or one of MaskBit, in a ``.bin`` file.

    References:
        Chang et al. 2022, arXiv:2202.04200; 1d-tokenizer, modeling/modules/maskgit_vqgan.py. Weber
        et al. 2024, arXiv:2409.16211; maskbit, modeling/conv_vqgan.py, with either of its decoders.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Convert it. Pixels in [0, 1], as there, are in [-1, 1] here."""
        weights = read_weights(path)
        with about(path):
            return from_weights(weights)


def from_weights(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
    """Build the tokenizer of a state dict.

    Raises:
        CheckpointError: If it is another network.
    """
    names = module_names(weights)
    found = sizes({renamed(name, names): item for name, item in weights.items()})
    table = vq(codebook_weight=1.0, commitment_weight=BETA)
    size = {"size": vote(weights, (VECTORS, 0), default=1), "dim": found.latents}
    codebook: dict[str, object] = {"kind": "vq", "arguments": {**table.arguments, **size}}
    if SIGNS in weights:
        codebook = lfq(found, entropy_weight=0.02)
    learned = {name: item for name, item in weights.items() if name not in (SIGNS, POWERS)}
    encoder = {
        **found.encoder,
        "downsampling": "conv" if any(".down_conv." in name for name in weights) else "pool",
        "input_range": [0.0, 1.0],
    }
    return load(
        stretched(learned, "decoder.conv_out"),
        [*names, *table.names],
        encoder={"kind": "maskgit", "arguments": encoder},
        codebook=codebook,
        decoder={"kind": "maskgit", "arguments": found.decoder},
        channels=found.channels,
        projects=False,
    )


def module_names(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Names:
    """List what modules are called there and here.

    MaskBit's newer decoder counts its levels from the latents, the others from the pixels.
    """
    blocks = "res_blocks" if any(".res_blocks." in name for name in weights) else "block"
    levels = count(weights, "encoder.down.")
    is_reversed = has(weights, "decoder.up.0.upsample_conv.")
    names = [
        (f"{side}.mid.res_blocks.", f"{side}.layers.mid.") for side in ("encoder", "decoder")
    ] * (blocks == "res_blocks")
    for level in range(levels):
        for theirs, own, resampling in (
            (f"encoder.down.{level}", f"encoder.layers.down.{level}", "down_conv"),
            (
                f"decoder.up.{levels - 1 - level if is_reversed else level}",
                f"decoder.layers.up.{level}",
                "upsample_conv",
            ),
        ):
            names.append((f"{theirs}.{blocks}.", f"{own}.block."))
            names.append((f"{theirs}.{resampling}.", f"{own}.resampling.conv."))
    return [*names, *SAME]
