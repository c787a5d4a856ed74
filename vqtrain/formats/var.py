"""Checkpoints of VAR: its multi-scale image tokenizer."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import CheckpointError, ConfigError, require
from vqtrain.formats.base import Converter, Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.cnn import CONVOLUTIONS, VECTORS, Table, about, assemble, drop
from vqtrain.formats.parts.convolutions import without_projections
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

OWNER = "VAR's VQVAE"
SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
# How often training used each code at each scale.
HITS = "quantize.ema_vocab_hit_SV"
NUM_CONVOLUTIONS, SHARE = 4, 0.5
# Our names of the codes and of the convolutions that smooth scales.
CODES, SMOOTHING = "codebook.codebook.vectors", "codebook.convolutions."
TABLE: Names = ((VECTORS, CODES),)
# Of its training there: a convolution has half the weight.
ARGUMENTS = {
    "num_convolutions": NUM_CONVOLUTIONS,
    "convolution_share": SHARE,
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
class VAR(Converter, Exporter):
    """The image tokenizer of VAR, in a ``.pth`` file.

    Args:
        scales: Sides of the grids, which the file does not say; the default is that for 256 px. A
            folder that was exported, and a tokenizer that is, say them.

    References:
        Tian et al. 2024, arXiv:2404.02905; VAR, models/vqvae.py and models/quant.py.
        Deviation: codes go on training from what the coarser scales have left, see ``multiscale``.
    """

    def __init__(self, *, scales: Sequence[int] = SCALES) -> None:
        self.scales = list(scales)

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without the use of codes that its training counted."""
        scales = read_scales(path / CONFIG_FILE) if path.is_dir() else self.scales
        weights = drop(read_weights(checkpoint_in(path, ".pth")), HITS)
        table = Table(kind="multiscale", arguments={**ARGUMENTS, "scales": scales}, names=TABLE)
        with about(path):
            return assemble(weights, table, module_names(weights))

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse what its ``VQVAE`` cannot be."""
        checked_network(tokenizer)
        multiscale_of(tokenizer)

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write weights for its ``VQVAE``, and the arguments of that; read them again."""
        network = checked_network(tokenizer)
        codebook = multiscale_of(tokenizer)
        smoothing = {
            f"{SMOOTHING}{name}": item for name, item in codebook.convolutions.state_dict().items()
        }
        own = without_projections(
            {**with_table(tokenizer, CODES), **smoothing},
            table=CODES,
            smoothing=SMOOTHING,
            num_scales=len(codebook.scales),
            share=SHARE,
        )
        weights = unload(own, [*module_names(own), *CONVOLUTIONS, *TABLE])
        config = {
            "vocab_size": codebook.size,
            "z_channels": weights[VECTORS].shape[1],
            "ch": network["channels"],
            "v_patch_nums": list(codebook.scales),
        }
        name = "vae_ch{ch}v{vocab_size}z{z_channels}.pth".format(**config)
        weights[HITS] = torch.zeros(len(codebook.scales), codebook.size)
        write_checkpoint(tokenizer, out / name, weights, config)
        return compare_again(tokenizer, self.convert(out), images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the file, in a copy of VAR."""
        config, file = (
            str(path.absolute()) for path in (out / CONFIG_FILE, checkpoint_in(out, ".pth"))
        )
        return "\n".join(
            (
                "import json, torch",
                "from models.vqvae import VQVAE",
                f"model = VQVAE(**json.load(open({config!r})))",
                f"weights = torch.load({file!r}, map_location='cpu')",
                "model.load_state_dict(weights)",
            )
        )


def checked_network(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """Return the arguments that both networks have, if they can be those of VAR.

    Raises:
        ConfigError: If they cannot.
    """
    return published_arguments(
        tokenizer,
        OWNER,
        is_wide=True,
        in_channels=3,
        multipliers=[1, 1, 2, 2, 4],
        num_blocks=2,
        attention_factors=[16],
    )


def multiscale_of(tokenizer: Tokenizer) -> MultiScale:
    """Return the codebook of a tokenizer, if it is one that VAR has.

    Raises:
        ConfigError: If it is another.
    """
    codebook, specification = tokenizer.codebook, tokenizer.specification["codebook"]
    if not isinstance(codebook, MultiScale):
        raise ConfigError(f"{OWNER} has codebook=multiscale, not {specification['kind']}")
    inner = cast(Mapping[str, Any], specification["arguments"])["inner"]
    count = len(codebook.convolutions)
    require(
        (count, codebook.share) == (NUM_CONVOLUTIONS, SHARE),
        f"{OWNER} has codebook.num_convolutions={NUM_CONVOLUTIONS} and "
        f"codebook.convolution_share={SHARE}, not {count} and {codebook.share}",
    )
    check_nearest(codebook.codebook, OWNER, inner)
    return codebook


def read_scales(file: Path) -> list[int]:
    """Read the sides of the grids that an export has written down.

    Raises:
        CheckpointError: If the file cannot be read, or does not say them.
    """
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["v_patch_nums"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"cannot read v_patch_nums in {file}: {error}") from error


def module_names(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Names:
    """List what modules are called there and here; there one layer is queries, keys and values."""
    names = [
        (f"quantize.quant_resi.qresi_ls.{number}.", f"{SMOOTHING}{number}.")
        for number in range(NUM_CONVOLUTIONS)
    ]
    found = {match[0]: None for name in weights if (match := ATTENTION.match(name))}
    return names + [
        (f"{attention}qkv.", f"{attention}{part}.") for attention in found for part in "qkv"
    ]
