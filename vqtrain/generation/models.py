"""Which model suits which ids, and its settings."""

from dataclasses import dataclass
from typing import Annotated, final

import torch

from vqtrain.codebooks.base import Codebook
from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.errors import require
from vqtrain.generation.base import Condition, TokenModel
from vqtrain.generation.causal import Causal
from vqtrain.generation.form import TokenForm
from vqtrain.generation.masked import Masked
from vqtrain.generation.network import HEAD_DIM
from vqtrain.generation.next_scale import NextScale
from vqtrain.ops.free_memory import free_memory
from vqtrain.ranges import at_least, check_fields, one_of
from vqtrain.sequence import ORDERS

# Of a block, by its squared channels: queries, keys, values, the output, and the two of the MLP.
PARAMETERS = 12


@final
@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Sizes and choices of a model over ids.

    Attributes:
        depth: Blocks of the transformer.
        dim: Its channels, a multiple of the 32 of an attention head.
        masked: Whether ids are predicted from any others, not from those before them.
        order: Of the ids of several codebooks, for a causal model.

    Raises:
        ConfigError: If a value is out of range.
    """

    depth: Annotated[int, at_least(1)]
    dim: Annotated[int, at_least(1)]
    masked: bool = False
    order: Annotated[str, one_of(*ORDERS)] = ORDERS[0]

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")
        require(
            self.dim % HEAD_DIM == 0,
            f"dim must be a multiple of {HEAD_DIM}, the channels of an attention head, got "
            f"{self.dim}: use {max(1, round(self.dim / HEAD_DIM)) * HEAD_DIM}",
        )


def build_model(
    form: TokenForm, settings: ModelSettings, condition: Condition, codebook: Codebook
) -> TokenModel:
    """Build the model for ids of a form.

    It is ``Masked`` if the settings say so, ``NextScale`` for ids of several scales, and otherwise
    ``Causal``.

    Args:
        form: Of the ids.
        settings: Sizes and choices.
        condition: What is known of each sample.
        codebook: That the ids are of.

    Raises:
        ConfigError: If its weights do not fit into memory.
    """
    depth, dim = settings.depth, settings.dim
    check_memory(form, depth, dim)
    if settings.masked:
        return Masked(form=form, condition=condition, depth=depth, dim=dim)
    if isinstance(codebook, MultiScale):
        return NextScale(form=form, condition=condition, codebook=codebook, depth=depth, dim=dim)
    return Causal(form=form, condition=condition, depth=depth, dim=dim, order=settings.order)


def check_memory(form: TokenForm, depth: int, dim: int) -> None:
    """Refuse blocks or a vocabulary whose weights cannot be trained on this machine.

    There is a vector for each id, and training keeps four numbers for each weight: itself, its
    gradient and both averages of Adam.

    Raises:
        ConfigError: If they take more memory than is free.
    """
    ids = form.num_codebooks * form.size
    free = free_memory(torch.device("cpu"))
    blocks, taken = 4 * 4 * PARAMETERS * depth * dim**2, 4 * 4 * ids * dim
    require(
        free is None or blocks <= free,
        f"to train {depth} blocks with dim={dim} takes {blocks / 2**30:.0f} GiB of memory, of "
        f"which {(free or 0) / 2**30:.0f} are free: use a smaller budget, depth or dim",
    )
    require(
        free is None or taken <= free,
        f"to train a model over {ids} ids with dim={dim} takes {taken / 2**30:.0f} GiB of memory, "
        f"of which {(free or 0) / 2**30:.0f} are free: use a tokenizer with fewer ids or more "
        "codebooks, or a smaller dim",
    )
