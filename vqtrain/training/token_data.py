"""Batches of token ids and conditions, from a position in their order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.faults import Fault
from vqtrain.shapes import Mask
from vqtrain.training.token_arrays import TokenArrays
from vqtrain.training.trained import RunData, Timed


@final
@dataclass(kw_only=True, eq=False)  # not frozen: Lightning's float64 refuses frozen dataclasses
class TokenBatch:
    """A batch of ids.

    Attributes:
        token_ids: Of each sample.
        conditions: What is known of each.
        numbers: The number of each sample in its set.
        mask: False for padding, which must not be counted.
        faults: None: all samples were read before.
    """

    token_ids: Int64[Tensor, " b *tokens"]
    conditions: Int64[Tensor, "b m"]
    numbers: Sequence[int]
    mask: Mask
    faults: Sequence[Fault] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        """Copy to a device, with the arguments of ``Tensor.to``."""
        tensors = (self.token_ids, self.conditions, self.mask)
        ids, conditions, mask = (each.to(device, non_blocking=non_blocking) for each in tensors)
        return replace(self, token_ids=ids, conditions=conditions, mask=mask)


@final
class TokenData(RunData):
    """Batches of ids, in an order that depends on the seed and the position alone.

    Args:
        training: What is trained on.
        validation: What is validated on.
        batch_size: Samples of a batch of each process.
        seed: Seed of the run.
        start: Samples that the run has seen so far, over all ranks.
    """

    def __init__(
        self,
        *,
        training: TokenArrays,
        validation: TokenArrays,
        batch_size: int,
        seed: int,
        start: int,
    ) -> None:
        super().__init__(training_digest=training.digest, validation_digest=validation.digest)
        self.training, self.validation = training, validation
        self.batch_size, self.seed, self.start = batch_size, seed, start
        self.consumed = 0

    @property
    def epochs(self) -> float:
        """Epochs that the run has seen so far."""
        return self.samples_at(self.consumed) / len(self.training)

    @property
    def summary(self) -> dict[str, object]:
        """Nothing: a model over ids is read together with its probe."""
        return {}

    @property
    def remedy_for_waiting(self) -> None:
        """Nothing: all is in memory."""
        return

    def samples_at(self, batches: int) -> int:
        """Count the samples seen over all ranks after that many batches of each."""
        return self.start + batches * distributed.world_size() * self.batch_size

    def places(self) -> None:
        """Return None: the samples tell the position."""
        return

    def on_before_batch_transfer(self, batch: TokenBatch, dataloader_idx: int) -> TokenBatch:
        """Note that a batch is being trained on; Lightning has loaded one more by now."""
        del dataloader_idx
        self.consumed += 1
        return batch

    def train_dataloader(self) -> Timed:
        """Return batches without an end."""
        self.batches = Timed(self.training_batches())
        return self.batches

    def training_batches(self) -> Iterator[TokenBatch]:
        """Yield training batches of this rank from ``start`` on."""
        n, world_size = len(self.training), distributed.world_size()
        first = self.start + distributed.rank() * self.batch_size
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            numbers = []
            for position in range(first, first + self.batch_size):
                if position // n != epoch:
                    epoch = position // n
                    order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(n)
                numbers.append(int(order[position % n]))
            yield batch_of(self.training, numbers)
            first += world_size * self.batch_size

    def validation_batches(self) -> Iterable[TokenBatch]:
        """Yield every validation sample once over all ranks, in equally many full batches."""
        n, of_all = len(self.validation), self.batch_size * distributed.world_size()
        for begin in range(distributed.rank() * self.batch_size, -(-n // of_all) * of_all, of_all):
            yield batch_of(self.validation, range(begin, begin + self.batch_size))


def batch_of(arrays: TokenArrays, numbers: Sequence[int]) -> TokenBatch:
    """Make a batch of some samples; numbers after the last one are padding."""
    places = np.array(numbers)
    found = np.minimum(places, len(arrays) - 1)
    return TokenBatch(
        token_ids=torch.from_numpy(arrays.token_ids[found].astype(np.int64)),
        conditions=torch.from_numpy(arrays.conditions[found]),
        numbers=list(numbers),
        mask=torch.from_numpy(places < len(arrays)),
    )
