"""The objective of one batch: its terms, and where they are differentiated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vqtrain.losses.parts.adaptive_weight import Balance
from vqtrain.ops.gradients import gradient_at


@dataclass(frozen=True, kw_only=True)
class BalancedTerm:
    """A term of one batch whose weight may depend on all batches of its step.

    Attributes:
        loss: The term without its weight.
        weight: Its weight, or None where that depends on later batches of the step.
        balance: How it compares with the reconstruction terms over the whole step, on the last
            batch; None where that is not measured.
    """

    loss: Float[Tensor, ""]
    weight: Float[Tensor, ""] | float | None
    balance: Balance | None = None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The objective of one batch: ``total``, and the weighted ``balanced`` terms.

    Attributes:
        total: All other terms. The generator and the discriminator each get the gradient of their
            own terms.
        parts: The same, detached, to log: ``generator/...`` and ``discriminator/...``.
        balanced: The generator's ``adversarial`` term and the ``alignment``, from their start on.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Tensor]
    balanced: Mapping[str, BalancedTerm]

    def detach(self) -> "Terms":
        """Return the same values without their graph."""
        balanced = {
            name: replace(term, loss=term.loss.detach()) for name, term in self.balanced.items()
        }
        return replace(self, total=self.total.detach(), balanced=balanced)

    def is_finite(self) -> Bool[Tensor, ""]:
        """Say whether the loss is finite."""
        losses = [self.total, *(term.loss for term in self.balanced.values())]
        return torch.stack([loss.detach().isfinite() for loss in losses]).all()

    def logged(self, last: "Terms") -> dict[str, Tensor]:
        """Return the detached, weighted terms to log, by the weights of the step's last batch."""
        parts = dict(self.parts)
        for name, term in self.balanced.items():
            weight = last.balanced[name].weight
            assert weight is not None, "the weight is known at the end of a step"
            parts[f"generator/{name}"] = weight * term.loss.detach()
            parts["generator/total"] = parts["generator/total"] + parts[f"generator/{name}"]
        return parts

    @property
    def balances(self) -> dict[str, Tensor]:
        """What the last batch of a step has measured of its weights, to log."""
        return {
            f"{name}/{key}": value
            for name, term in self.balanced.items()
            if term.balance is not None
            for key, value in vars(term.balance).items()
        }


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the terms of one batch are differentiated.

    Attributes:
        outputs: Of the decoder, with their graph.
        points: The same without it: leaves, at which terms are differentiated first.
        gradients: Of the reconstruction terms, there.
        layers: As of ``Objective.forward``, as the others.
    """

    outputs: Sequence[Tensor]
    points: Sequence[Tensor]
    gradients: Sequence[Tensor]
    layers: Mapping[str, Tensor]
    step: int
    is_last: bool
    scale: Tensor | float

    def gradient(self, point: Float[Tensor, "*shape"], loss: Float[Tensor, ""]) -> Tensor:
        """Return the gradient of a loss at a point."""
        return gradient_at(point, [loss], [torch.ones_like(loss)], self.scale)
