"""Checkpoints of LlamaGen: its image tokenizers VQ-8 and VQ-16."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.errors import require
from vqtrain.formats.base import Converter, Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.cnn import PROJECTIONS, TABLE, about, assemble, count, drop, vq
from vqtrain.formats.parts.loading import Names, unload
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.writing import (
    CONFIG_FILE,
    check_nearest,
    checkpoint_in,
    compare_again,
    published_arguments,
    with_table,
    write_checkpoint,
)
from vqtrain.tokenizer.model import Tokenizer

OWNER = "LlamaGen's VQModel"
# The last ids that its training saw, so many of them.
RECENT, NUM_RECENT = "quantize.codebook_used", 65_536


@final
class LlamaGen(Converter, Exporter):
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
        file = checkpoint_in(path, ".pt")
        weights = drop(read_weights(file, self.sections), RECENT)
        table = vq(codebook_weight=1.0, commitment_weight=0.25, l2_normalize=True)
        with about(path):
            return assemble(weights, table, module_names(count(weights, "encoder.conv_blocks.")))

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse what its ``VQModel`` cannot be."""
        checked_network(tokenizer)

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write weights for its ``VQModel``, and what its ``ModelArgs`` take; read them again."""
        network = checked_network(tokenizer)
        config = {
            "codebook_size": tokenizer.codebook.size,
            "codebook_embed_dim": tokenizer.codebook.dim,
            "encoder_ch_mult": network["multipliers"],
            "decoder_ch_mult": network["multipliers"],
            "z_channels": network["latent_channels"],
        }
        levels = len(network["multipliers"])
        file = out / f"vq_ds{2 ** (levels - 1)}.pt"
        write_checkpoint(tokenizer, file, {"model": to_theirs(tokenizer, levels)}, config)
        return compare_again(tokenizer, self.convert(file), images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the file, in a copy of LlamaGen."""
        config, file = (
            str(path.absolute()) for path in (out / CONFIG_FILE, checkpoint_in(out, ".pt"))
        )
        return "\n".join(
            (
                "import json, torch",
                "from tokenizer.tokenizer_image.vq_model import ModelArgs, VQModel",
                f"model = VQModel(ModelArgs(**json.load(open({config!r}))))",
                f"checkpoint = torch.load({file!r}, map_location='cpu')",
                "model.load_state_dict(checkpoint['model'])",
            )
        )


def checked_network(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """Return the arguments that both networks have, if the tokenizer can be one of LlamaGen.

    Raises:
        ConfigError: If it cannot.
    """
    network = published_arguments(tokenizer, OWNER, in_channels=3, channels=128, num_blocks=2)
    last = [2 ** (len(network["multipliers"]) - 1)]
    require(
        network["attention_factors"] == last,
        f"{OWNER} has attention at its last level alone: attention_factors must be {last}, got "
        f"{network['attention_factors']}",
    )
    check_nearest(tokenizer.codebook, OWNER, tokenizer.specification["codebook"])
    require(
        getattr(tokenizer.codebook, "l2_normalize", False),
        f"{OWNER} compares vectors of unit length: codebook.l2_normalize must be true",
    )
    return network


def to_theirs(tokenizer: Tokenizer, levels: int) -> dict[str, Shaped[Tensor, "..."]]:
    """Return the weights by the names that they have there, and no ids of a training."""
    names = [*module_names(levels), *PROJECTIONS, *TABLE]
    return unload(with_table(tokenizer), names) | {RECENT: torch.zeros(NUM_RECENT)}


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
