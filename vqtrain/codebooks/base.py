"""The contract that every codebook keeps; ``contract.py`` checks it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from vqtrain.codebooks.parts.step_state import StepState
from vqtrain.errors import require
from vqtrain.ops.precision import at_least_float32


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a codebook gives back.

    Attributes:
        z_q: Quantized latents. Gradients pass on to the encoder.
        token_ids: One id per codebook and token, in [0, size).
        loss: What the codebook asks the generator to minimize, already weighted.
        metrics: Detached scalars to log, without a prefix.
    """

    z_q: Float[Tensor, "b c *grid"]
    token_ids: Int64[Tensor, "b k *tokens"]
    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A codebook for use without training.

    Attributes:
        specification: ``{"kind": word, "arguments": {...}}`` that builds it.
        weights: Its state dict.
    """

    specification: Mapping[str, object]
    weights: Mapping[str, Shaped[Tensor, "..."]]


class Codebook(nn.Module, ABC):
    """Turns continuous latents into tokens, and tokens back into latents.

    The life of a codebook in a training step is ``begin_step``, then ``forward`` for each batch,
    then ``update``, or ``discard_step`` if the step is skipped. ``forward`` moves no code: it only
    adds to the ``StepState`` that a codebook has as submodules, which ``update`` uses. So four
    batches of two samples move a codebook exactly as one batch of eight.

    Its parameters and buffers are at least float32, also where the tokenizer is in half precision.

    Attributes:
        size: Number of ids in each codebook.
        dim: Channels c of ``z_q``.
        num_codebooks: Ids per token, k; 0 for one that is continuous.
        id_order: What an id means, in words; an exported tokenizer says it.
        selection_rule: How an id is chosen, in words; an exported tokenizer says it.
        token_grids: The grids whose ids one sample has, one after another, from coarse to fine,
            where the last one is the only grid of latents that the codebook takes; none where it
            takes any grid.
        grid_unit: What the sides of a grid must be multiples of.
        chooses_nearest: Whether an id is the row of one table that is nearest to the latent.
        nested: Whether the ids of the first codebooks decode alone, without those of the others.
        learns_from_decoder: Whether its codes learn from the decoder's gradient alone.
        initial_std: Standard deviation that channels of the first latents are to have, with a mean
            of 0; None for latents as the encoder gives them, which differ little from their mean.
            The trainer sees to it before ``initialize``.
        initial_whitening: Whether each channel is to have that standard deviation, without
            correlation; otherwise all channels together, which keep the few directions in which
            latents vary.
    """

    size: int
    dim: int
    num_codebooks: int
    id_order: str
    selection_rule: str
    token_grids: tuple[tuple[int, ...], ...] = ()
    grid_unit: int = 1
    chooses_nearest: bool = False
    nested: bool = False
    learns_from_decoder: bool = False
    initial_std: float | None = None
    initial_whitening: bool = True

    @property
    def in_channels(self) -> int:
        """Channels d of the latents: ``dim``, unless a codebook reads codes off others."""
        return self.dim

    @property
    def is_fixed(self) -> bool:
        """Whether no training changes it: it has neither parameters nor the state of a step."""
        learns = any(isinstance(module, StepState) for module in self.modules())
        return not learns and not list(self.parameters())

    @abstractmethod
    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Quantize latents of at least float32; in train mode also add to the statistics.

        Latents that are not finite give a loss or a ``z_q`` that is not finite, and ids in range.
        """

    @abstractmethod
    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Look ids up again; in eval mode this gives back the very ``z_q`` they came from.

        Ids are integers of any width: ``parts.lookup.ids_of`` makes them int64, and refuses what
        is none.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Codebook":
        """Keep at least float32 where ``half()``, ``bfloat16()`` or ``to`` would narrow the codes.

        Half precision confuses codes that are near each other; their memory is that of a layer.
        """
        return super()._apply(  # type: ignore[no-untyped-call]  # torch declares no types for it
            lambda tensor: at_least_float32(fn(tensor)), recurse
        )

    def tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the ids of one sample, without k, from its grid of latents.

        Raises:
            ConfigError: If the codebook does not take such a grid.
        """
        return grid

    def takes(self, num_codebooks: int) -> bool:
        """Say whether ids of so many codebooks, the first ones, decode."""
        most = self.num_codebooks
        return 1 <= num_codebooks <= most if self.nested else num_codebooks == most

    def grid(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of latents of a sample, from the shape of its ids, as of ``tokens``.

        Raises:
            ConfigError: If no sample has ids of that shape.
        """
        return self.token_grids[-1] if self.token_grids else tokens

    def id_grids(
        self, token_ids: Int64[Tensor, " k *tokens"]
    ) -> list[Int64[Tensor, "_rows _columns"]]:
        """Return the ids of one sample as grids to look at, of each codebook or of each scale."""
        if not self.token_grids:
            return [ids.reshape(-1, ids.shape[-1]) for ids in token_ids]
        parts = torch.split(token_ids[0], [math.prod(grid) for grid in self.token_grids])
        return [part.reshape(grid) for part, grid in zip(parts, self.token_grids, strict=True)]

    def initialize(self, z: Float[Tensor, "b d *grid"]) -> None:
        """Start from latents of the data, once, before step 0, if the codes depend on them.

        Args:
            z: Latents of all ranks in the order of the data, the same on every rank. The global
                random state is the same on every rank too.
        """
        del z

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step, with the same arguments on every rank.

        Args:
            step: The number of generator updates before this one.
            seed: The seed of the run, from which random numbers of the step follow.
        """
        for _, part in parts_of(self):
            part.begin_step(step, seed)

    def update(self, step: int) -> Mapping[str, Tensor]:
        """End a step: reduce its statistics over ranks, use them, and clear them.

        Called once a step on all ranks, after the optimizer, with the same global random state on
        every rank.

        Args:
            step: The number of generator updates before this one.

        Returns:
            Detached scalars to log, the same on every rank, without a prefix.
        """
        del step
        return {}

    def discard_step(self) -> None:
        """End a step that is skipped: leave everything as it was before."""
        for _, part in parts_of(self):
            part.discard_step()

    def grow(self, given: Mapping[str, Tensor]) -> None:
        """Take over a codebook of the same kind with fewer codes, so that every id stays.

        The given codes are the first ones. The others are far from all latents at first, and come
        into use by restarts.

        Args:
            given: Its state dict, with the names of this one's.

        Raises:
            ConfigError: If a codebook of this kind, or with these arguments, cannot grow.
        """
        inner = self.inner_codebooks()
        require(
            bool(inner),
            "this codebook cannot grow without changing ids; vq and ema can, whose restarts bring "
            "new codes into use, and codebooks made of them",
        )
        for name, codebook in inner.items():
            codebook.grow({own: given[f"{name}.{own}"] for own in codebook.state_dict()})
        prefixes = tuple(f"{name}." for name in inner)
        for name, tensor in self.state_dict().items():
            if not name.startswith(prefixes):
                require(tensor.shape == given[name].shape, f"{name} has another shape there")
                tensor.copy_(given[name])

    def repeat(self, times: int) -> None:
        """Expect so many times as many calls a batch, as several depths or scales share this."""
        for _, part in parts_of(self):
            part.repeat(times)

    def inner_codebooks(self) -> dict[str, "Codebook"]:
        """Return the codebooks that this one is made of, by their names as submodules."""
        return {name: part for name, part in parts_of(self) if isinstance(part, Codebook)}

    def stored_tables(self) -> list[Float[Tensor, "k d"]]:
        """Return the tables of codes that are stored with the weights; none of computed codes."""
        inner = self.inner_codebooks().values()
        return [table for codebook in inner for table in codebook.stored_tables()]

    def folded(self, specification: Mapping[str, object]) -> Folded:
        """Return what gives the same ids and ``z_q`` with less work; itself if there is nothing.

        Args:
            specification: ``{"kind": word, "arguments": {...}}`` that has built this codebook.
        """
        return Folded(specification=specification, weights=self.state_dict())


def parts_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, StepState | Codebook]]:
    """Find what takes part in the steps of a codebook: its own state, and its inner codebooks."""
    for name, child in module.named_children():
        if isinstance(child, StepState | Codebook):
            yield f"{prefix}{name}", child
        else:
            yield from parts_of(child, f"{prefix}{name}.")


def leaves(codebook: Codebook) -> list[Codebook]:
    """List the codebooks that have their own vectors, and are not built from others."""
    inner = codebook.inner_codebooks().values()
    return [leaf for each in inner for leaf in leaves(each)] or [codebook]
