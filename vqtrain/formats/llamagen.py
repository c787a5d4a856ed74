"""Checkpoints of LlamaGen: its image tokenizers VQ-8 and VQ-16."""

from pathlib import Path
from typing import final

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, assemble, count, drop, vq
from vqtrain.formats.parts.loading import Names
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer


@final
class LlamaGen(Converter):
    """A VQ-8 or VQ-16 image tokenizer of LlamaGen, in a ``.pt`` file.

    Args:
        ema: Averaged weights where the file has them, as in its scripts, else the others.

    References:
        Sun et al. 2024, arXiv:2406.06525; LlamaGen, tokenizer/tokenizer_image/vq_model.py, whose
        codes and latents have unit length.
    """

    def __init__(self, *, ema: bool = True) -> None:
        self.sections = ("ema",) * ema + ("model", "state_dict")

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without the last ids that its training saw."""
        weights = drop(read_weights(path, self.sections), "quantize.codebook_used")
        table = vq(codebook_weight=1.0, commitment_weight=0.25, l2_normalize=True)
        with about(path):
            return assemble(weights, table, module_names(count(weights, "encoder.conv_blocks.")))


def module_names(levels: int) -> Names:
    """List what modules are called there and here; its decoder counts from the latents."""
    names = [
        (f"{side}.mid.{index}.", f"{side}.mid.{name}.")
        for side in ("encoder", "decoder")
        for index, name in enumerate(("block_1", "attn_1", "block_2"))
    ]
    for level in range(levels):
        for side, theirs, ours, resample in (
            ("encoder", level, f"down.{level}", "downsample"),
            ("decoder", levels - 1 - level, f"up.{level}", "upsample"),
        ):
            for their_part, our_part in (("res", "block"), ("attn",) * 2, (resample,) * 2):
                names.append(
                    (f"{side}.conv_blocks.{theirs}.{their_part}.", f"{side}.{ours}.{our_part}.")
                )
    return names
