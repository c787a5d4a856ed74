"""What a tokenizer in training reports since the last logged step."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.metrics.parts.codebook_usage import IdCounts
from vqtrain.training.means import Means


class Window:
    """Means of what the batches since the last line reported, and a histogram of their ids.

    Args:
        num_codebooks: Codebooks k of the tokenizer.
        size: Ids in each.

    Attributes:
        tokens: Ids of each codebook that the last means were over.
    """

    def __init__(self, *, num_codebooks: int, size: int) -> None:
        self.scalars = Means()
        self.ids = IdCounts(num_codebooks=num_codebooks, size=size)
        self.tokens = 0

    def add(
        self,
        terms: Mapping[str, Tensor],
        codebook: Mapping[str, Tensor],
        token_ids: Int64[Tensor, "b k *tokens"],
    ) -> None:
        """Count what one batch of a step that is applied has reported.

        Args:
            terms: Detached terms of the objective, ``generator/...`` and ``discriminator/...``.
            codebook: Detached scalars of the codebook.
            token_ids: Ids of the batch.
        """
        values = {f"train/{name}": value for name, value in terms.items()}
        values |= {f"train/codebook/{name}": value for name, value in codebook.items()}
        self.scalars.add(values)
        self.ids.add(token_ids)

    def add_step(self, values: Mapping[str, Tensor]) -> None:
        """Count what a step that is applied has reported itself."""
        self.scalars.add({f"train/{name}": value for name, value in values.items()})

    def means(self) -> dict[str, float]:
        """Return the means over all ranks, and begin a new window; collective."""
        result = self.scalars.take()
        if not result:
            return {}
        self.ids.reduce()
        self.tokens = self.ids.tokens
        result |= {f"train/codebook/{name}": v for name, v in self.ids.metrics().items()}
        self.ids.clear()
        return result

    def gather(self) -> None:
        """Collect what all ranks have noted on the first one; collective."""
        if not self.scalars.sums:
            return
        self.scalars.gather()
        self.ids.reduce()
        if distributed.rank() != 0:
            self.ids.empty()

    def state_dict(self) -> dict[str, object]:
        """Return the state as tensors and plain data; that of all ranks after ``gather``."""
        return {**self.scalars.state_dict(), "ids": self.ids.state_dict()}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Restore a state on the first rank, onto a device; the others begin with nothing."""
        ids = state["ids"]
        assert isinstance(ids, dict)
        self.scalars.load_state_dict(state, device)
        self.ids.load_state_dict(ids, device)
        if distributed.rank() != 0:
            self.ids.empty()
