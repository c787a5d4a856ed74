"""LeCam regularization of a discriminator."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain import distributed
from vqtrain.ops.precision import at_least_float32


@final
class LeCam(nn.Module):
    """Keeps logits near the average logit of the other side.

    The averages are of the steps before, over all batches and ranks of a step, and start at 0.

    Args:
        decay: Share of an average that a step keeps, in [0, 1).

    References:
        Tseng et al. 2021, arXiv:2104.03310, equation 5 and its code, in which only logits beyond
        the average of the other side count. Deviation: averages over all ranks.
    """

    means: Tensor

    def __init__(self, *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))
        self._sums: Tensor | None = None
        self._batches = 0

    def forward(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Return the regularization of one batch's logits, a mean over all tensors of them.

        It is mean(relu(real - a_fake)^2) + mean(relu(a_real - fake)^2), with the averages a.
        """
        average_real, average_fake = self.means.unbind()
        terms = [
            F.relu(r - average_fake).square().mean() + F.relu(average_real - f).square().mean()
            for r, f in zip(map(at_least_float32, real), map(at_least_float32, fake), strict=True)
        ]
        own = torch.stack([mean_logit(real), mean_logit(fake)])
        self._sums = own if self._sums is None else self._sums + own
        self._batches += 1
        return torch.stack(terms).mean()

    def update(self) -> None:
        """Move the averages by the batches of a step, if it has had any; collective."""
        if self._sums is None:
            return
        total = distributed.all_reduce_sum(self._sums)
        mean = total / (self._batches * distributed.world_size())
        self.means.lerp_(mean.to(self.means.dtype), 1 - self.decay)
        self.discard_step()

    def discard_step(self) -> None:
        """Forget the batches of a step."""
        self._sums, self._batches = None, 0


def mean_logit(logits: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Average a discriminator's logits, with equal weight for each of its tensors."""
    return torch.stack([at_least_float32(each.detach()).mean() for each in logits]).mean()
