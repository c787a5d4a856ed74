"""The contract every codebook keeps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float, Int64
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a codebook gives back.

    Attributes:
        z_q: Quantized latents. Gradients pass on to the encoder.
        token_ids: One id per codebook and grid position, in [0, size).
        loss: What the codebook asks the generator to minimize, already weighted.
        metrics: Detached scalars to log, without a prefix.
    """

    z_q: Float[Tensor, "b c *grid"]
    token_ids: Int64[Tensor, "b k *tokens"]
    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Codebook(nn.Module, ABC):
    """Turns continuous latents into tokens, and tokens back into latents.

    In training, ``forward`` runs once for every batch, also for those whose gradients are
    accumulated, and only adds to statistics (see ``vqtrain.layers.step_state``); what it added is
    used and cleared by ``update``. So four batches of two images move a codebook exactly as one
    batch of eight.

    Attributes:
        size: Number of ids in each codebook.
        dim: Channels c of ``z_q``, and of z.
        num_codebooks: Ids per grid position, k; 0 for one that is continuous.
        id_order: What an id means, in words; it is written into an exported tokenizer.
        selection_rule: How an id is chosen, in words; likewise.
        scales: Sides of the square grids that one image is quantized at, from coarse to fine; none
            where each position of any grid has its own ids.
        moments: Values that the encoder gives for each channel: 2 for a mean and a log-variance.
    """

    size: int
    dim: int
    num_codebooks: int
    id_order: str
    selection_rule: str
    scales: tuple[int, ...] = ()
    moments: int = 1

    @abstractmethod
    def forward(self, z: Float[Tensor, "b _moments_c *grid"]) -> Quantized:
        """Quantize latents of at least float32; in train mode also add to the statistics.

        Latents that are not finite give a loss or a ``z_q`` that is not finite, and ids in range.
        """

    @abstractmethod
    def decode(self, token_ids: Int64[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Look ids up again; in eval mode this gives back the very ``z_q`` they came from."""

    @abstractmethod
    def initialize(self, z: Float[Tensor, "b _moments_c *grid"]) -> None:
        """Start from latents of the data, once, before step 0.

        Args:
            z: Latents of all ranks in the order of the data, the same on every rank. The global
                random state is the same on every rank too.
        """

    @abstractmethod
    def update(self, step: int) -> Mapping[str, Tensor]:
        """End a step: reduce the statistics over ranks, move the codes, clear the statistics.

        Called once a step on all ranks, after the optimizer, with the same global random state on
        every rank.

        Args:
            step: The number of generator updates before this one.

        Returns:
            Detached scalars to log, the same on every rank, without a prefix.
        """
