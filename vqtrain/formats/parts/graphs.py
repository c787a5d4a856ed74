"""A tokenizer as two graphs of PyTorch, for any batch and, where it can be, any sample size."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from vqtrain.errors import ConfigError, require
from vqtrain.tokenizer.checks import LARGEST
from vqtrain.tokenizer.model import Tokenizer

# Axes of samples, by their number.
AXES = {1: ("positions",), 2: ("rows", "columns"), 3: ("frames", "rows", "columns")}
# The grid that is traced begins with these: other than each other, the batch, and one, which would
# all be taken for a rule.
TRACED_BATCH, TRACED_GRID = 2, (3, 5, 4)
# A side of one token is traced along another path than all others.
LEAST_SIDE = 2


@final
class Encoding(nn.Module):
    """``Tokenizer.encode`` as a module.

    Args:
        tokenizer: The tokenizer.
        refuses: Whether the graph itself refuses samples that mean nothing.
    """

    def __init__(self, tokenizer: Tokenizer, *, refuses: bool) -> None:
        super().__init__()
        self.tokenizer, self.refuses = tokenizer, refuses

    def forward(self, samples: Float[Tensor, "b c *size"]) -> Int64[Tensor, " b *tokens"]:
        """Turn samples in [-1, 1] into ids."""
        token_ids = self.tokenizer.encode(samples)
        if not self.refuses:
            return token_ids
        # A graph has no other way to compare sides than to reshape by them.
        whole = F.pad(samples, [n for lack in reversed(lacking(self.tokenizer)) for n in (lack, 0)])
        sides = zip(whole.shape[2:], self.tokenizer.unit, strict=True)
        parts = [part for side, unit in sides for part in (side // unit, unit)]
        cut = whole.reshape(*samples.shape[:2], *parts)
        return token_ids + zero_or_fault((cut.abs() <= LARGEST).all())  # NaN is not below it


@final
class Decoding(nn.Module):
    """``Tokenizer.decode`` as a module that gives float32.

    Args:
        tokenizer: The tokenizer.
        refuses: Whether the graph itself refuses ids that there are not.
    """

    def __init__(self, tokenizer: Tokenizer, *, refuses: bool) -> None:
        super().__init__()
        self.tokenizer, self.refuses = tokenizer, refuses

    def forward(self, token_ids: Int64[Tensor, " b *tokens"]) -> Float[Tensor, "b c *size"]:
        """Turn ids into samples in [-1, 1]."""
        if self.refuses:
            are_ids = (token_ids >= 0) & (token_ids < self.tokenizer.vocab_size)
            token_ids = token_ids + zero_or_fault(are_ids.all())
        return self.tokenizer.decode(token_ids).float()


def lacking(tokenizer: Tokenizer) -> list[int]:
    """Return by how much samples are shorter along each axis than tokens times downsampling.

    Clips of 1 + 4k frames, whose first token has one frame, lack 3.
    """
    factors = tokenizer.downsampling
    first = tokenizer.encoder.size([1] * len(factors))
    return [factor - n for factor, n in zip(factors, first, strict=True)]


def zero_or_fault(holds: Bool[Tensor, ""]) -> Int64[Tensor, " one"]:
    """Return 0, by an index into one element that is out of range unless a condition holds."""
    return torch.zeros(1, dtype=torch.int64).index_select(0, (~holds).long().reshape(1))


@dataclass(frozen=True, kw_only=True)
class Programs:
    """A tokenizer as two graphs.

    Attributes:
        encoder: From float32 samples to ids.
        decoder: From ids to float32 samples.
    """

    encoder: ExportedProgram
    decoder: ExportedProgram


def traced_size(tokenizer: Tokenizer) -> tuple[int, ...] | None:
    """Return the one size of samples that graphs of a tokenizer take; None if they take any."""
    grids = tokenizer.codebook.token_grids
    if grids:
        return tokenizer.encoder.size(grids[-1])
    return tokenizer.encoder.sample_size or tokenizer.decoder.sample_size


def check_ids(tokenizer: Tokenizer) -> None:
    """Refuse a codebook that has no ids.

    Raises:
        ConfigError: If the codebook is continuous.
    """
    kind = tokenizer.specification["codebook"]["kind"]
    require(
        tokenizer.codebook.num_codebooks > 0,
        f"codebook={kind} is continuous: there are no ids for a graph to give or take, so only "
        "format=safetensors and format=transformers are for it",
    )


def trace(tokenizer: Tokenizer, *, refuses: bool) -> Programs:
    """Trace a tokenizer for any batch, and any size of samples unless there is one ``traced_size``.

    Args:
        tokenizer: Folded, on the CPU; its networks may be in half precision.
        refuses: Whether the graphs fail for samples and ids that mean nothing. On a GPU such a
            failure would end the process.

    Raises:
        ConfigError: If the codebook is continuous, or a module cannot be traced.
    """
    check_ids(tokenizer)
    batch = Dim("batch")
    sample_dims, id_dims = {0: batch}, {0: batch}
    size = traced_size(tokenizer)
    if size is None:
        units, lacks = tokenizer.unit, lacking(tokenizer)
        size = tuple(
            n * unit - lack for n, unit, lack in zip(TRACED_GRID, units, lacks, strict=False)
        )
        axes = [Dim(name, min=LEAST_SIDE) for name in AXES[len(size)]]
        codebook = tokenizer.codebook
        first = 1 if codebook.num_codebooks == 1 else 2
        counts = codebook.tokens((codebook.grid_unit,) * len(size))
        for place, axis in enumerate(axes):
            sample_dims[2 + place] = units[place] * axis - lacks[place]
            id_dims[first + place] = counts[place] * axis
    samples = torch.zeros(TRACED_BATCH, tokenizer.channels, *size)
    token_ids = torch.zeros(TRACED_BATCH, *tokenizer.token_shape(*size), dtype=torch.int64)
    return Programs(
        encoder=_program(Encoding(tokenizer, refuses=refuses), samples, sample_dims),
        decoder=_program(Decoding(tokenizer, refuses=refuses), token_ids, id_dims),
    )


def _program(module: Encoding | Decoding, example: Tensor, dims: dict[int, Dim]) -> ExportedProgram:
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,), dynamic_shapes=(dims,))
    except Exception as error:  # of any kind, whatever a module does that is no graph
        parts = module.tokenizer.specification
        kinds = ", ".join(f"{part}={parts[part]['kind']}" for part in parts)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"torch.export cannot trace {kinds}: {reason[0]}") from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names folders of the machine that exports
    return program
