"""State dicts with the names of taming-transformers, which several formats have."""

from collections.abc import Mapping

from einops import rearrange
from jaxtyping import Int64, Shaped
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.parts.cnn import VECTORS, Table, assemble, vq
from vqtrain.formats.parts.loading import Names
from vqtrain.tokenizer.model import Tokenizer

# Weight of the smaller term of the codebook's loss in all of that code.
BETA = 0.25
# Codes and scores of the Gumbel variant.
GUMBEL = ("quantize.embed.", "quantize.proj.")
USED = "quantize.used"

GUMBEL_NAMES: Names = (
    ("quantize.embed.weight", "codebook.vectors"),
    ("quantize.proj.", "codebook.scores."),
)
# There a 1x1 convolution, here linear.
SCORES = "codebook.scores.weight"


def from_weights(weights: Mapping[str, Shaped[Tensor, "..."]], *, legacy: bool) -> Tokenizer:
    """Build the tokenizer of a state dict with the names of taming-transformers.

    Raises:
        CheckpointError: If it is another network.
    """
    if any(name.startswith(GUMBEL) for name in weights):
        return assemble(*gumbel(only_used(weights, *GUMBEL)))
    codebook_weight, commitment_weight = (BETA, 1.0) if legacy else (1.0, BETA)
    table = vq(codebook_weight=codebook_weight, commitment_weight=commitment_weight)
    return assemble(only_used(weights, VECTORS), table)


def gumbel(
    weights: Mapping[str, Shaped[Tensor, "..."]],
) -> tuple[dict[str, Shaped[Tensor, "..."]], Table]:
    """Describe the Gumbel variant, whose scores are a 1x1 convolution there and linear here.

    It goes on at our last temperature: a trained one is past its schedule.
    """
    arguments = {
        "kl_weight": 1e-8,
        "temperature": 0.0625,
        "final_temperature": 0.0625,
        "temperature_steps": 0,
    }
    linear = {
        name: rearrange(item, "size dim 1 1 -> size dim")
        for name, item in weights.items()
        if name.startswith("quantize.proj.") and item.shape[2:] == (1, 1)
    }
    return {**weights, **linear}, Table(kind="gumbel", arguments=arguments, names=GUMBEL_NAMES)


def as_convolution(
    own: Mapping[str, Shaped[Tensor, "..."]],
) -> dict[str, Shaped[Tensor, "..."]]:
    """Give the scores among our weights the shape that they have there."""
    return {**own, SCORES: rearrange(own[SCORES], "size dim -> size dim 1 1")}


def only_used(
    weights: Mapping[str, Shaped[Tensor, "..."]], *tables: str
) -> dict[str, Shaped[Tensor, "..."]]:
    """Keep the rows that a remap file lists, in its order: its ids are places in that list.

    Raises:
        CheckpointError: If the list is none.
    """
    kept = dict(weights)
    if USED not in kept:
        return kept
    used = kept.pop(USED)
    for name in [name for name in kept if name.startswith(tables)]:
        kept[name] = kept[name][checked(used, len(kept[name]))]
    return kept


def checked(used: Shaped[Tensor, "..."], size: int) -> Int64[Tensor, " n"]:
    """Refuse a list of ids that the table does not have, or has twice."""
    ids = used.long()
    if ids.ndim != 1 or not len(ids) or len(set(ids.tolist())) != len(ids):
        raise CheckpointError(f"quantize: {USED} is no list of different ids")
    if not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise CheckpointError(
            f"quantize: {USED} has ids from {int(ids.min())} to {int(ids.max())}, the table has "
            f"0 to {size - 1}"
        )
    return ids
