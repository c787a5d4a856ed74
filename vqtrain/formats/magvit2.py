"""Checkpoints of SEED-Voken's Open-MAGVIT2 for images."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, averaged, count, drop, has
from vqtrain.formats.parts.convolutional import SAME, lfq, sizes
from vqtrain.formats.parts.loading import Names, load, renamed
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer


@final
class MAGVIT2(Converter):
    """A tokenizer of images of Open-MAGVIT2, in a ``.ckpt`` file.

    Args:
        ema: Averaged weights where the file has them, as in its evaluation, else the others.

    References:
        Luo et al. 2024, arXiv:2409.04410; SEED-Voken,
        src/Open_MAGVIT2/modules/diffusionmodules/improved_model.py.
    """

    def __init__(self, *, ema: bool = True) -> None:
        self.ema = ema

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without its losses."""
        weights = drop(read_weights(path), "loss.", "model_ema.loss", "colorize")
        with about(path):
            return from_weights(averaged(weights, use=self.ema))


def from_weights(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
    """Build the tokenizer of a state dict.

    Raises:
        CheckpointError: If it is another network.
    """
    names = module_names(weights)
    found = sizes({renamed(name, names): item for name, item in weights.items()})
    adaptive_norm = has(weights, "decoder.adaptive.")
    return load(
        weights,
        names,
        encoder={"kind": "magvit2", "arguments": found.encoder},
        codebook=lfq(found, entropy_weight=0.1),
        decoder={
            "kind": "magvit2",
            "arguments": {**found.decoder, "adaptive_norm": adaptive_norm},
        },
        channels=found.channels,
        projects=False,
    )


def module_names(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Names:
    """List what modules are called there and here."""
    names = [
        ("encoder.mid_block.", "encoder.layers.mid."),
        ("decoder.mid_block.", "decoder.layers.mid."),
    ]
    for level in range(count(weights, "encoder.down.")):
        down, up = f"encoder.down.{level}.downsample.", f"decoder.up.{level}.upsample.conv1."
        names.append((down, f"encoder.layers.down.{level}.resampling."))
        names.append((up, f"decoder.layers.up.{level}.resampling.conv."))
    return [*names, *SAME]
