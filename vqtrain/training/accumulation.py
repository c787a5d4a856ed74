"""The batches of one step: their gradients, and what they report at its end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd import grad

from vqtrain.losses.parts.terms import Terms
from vqtrain.tokenizer.reconstruction import Reconstruction
from vqtrain.training.window import Window


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """A batch that has been differentiated.

    Attributes:
        terms: Detached.
        codebook: Detached scalars of the codebook.
        token_ids: Ids of the batch.
        gradient: Of the batch's part in the loss of the step, at the latents; None if they are
            those of frozen networks.
        deferred: Gradients of terms that it lacks, without their weights, by the terms' names.
        scale: The factor of these gradients.
    """

    terms: Terms
    codebook: Mapping[str, Tensor]
    token_ids: Int64[Tensor, "b k *tokens"]
    gradient: Float[Tensor, "b d *grid"] | None
    deferred: Mapping[str, Float[Tensor, "b d *grid"]]
    scale: Float[Tensor, ""]


@final
class Accumulation:
    """Adds up the gradients of the batches of one step.

    An adaptive weight is known at the last batch of a step. The batches before it are
    differentiated once more for each such term, whose gradients are added up separately until then.
    The last batch, and every batch with fixed weights, are differentiated once.

    Args:
        parameters: Of the tokenizer, and others that the generator's terms train.
        batches: Number of batches in a step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], batches: int) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._batches = batches
        self.clear()

    def clear(self) -> None:
        """Begin a new step."""
        self._results: list[BatchResult] = []
        self._deferred: dict[str, dict[nn.Parameter, Tensor]] = {}

    def add(
        self,
        terms: Terms,
        output: Reconstruction,
        backward: Callable[[Tensor], None],
        scale: Float[Tensor, ""],
    ) -> None:
        """Add the gradients of one batch.

        Args:
            terms: Its objective.
            output: Its reconstruction.
            backward: Adds the gradients of a scalar to those of the parameters.
            scale: A factor of all gradients, the same for each batch of the step.
        """
        loss, deferred = terms.total, {}
        latents = output.latents if output.latents.requires_grad else None
        for name, term in terms.balanced.items():
            if term.weight is None:
                at_latents = self._defer(name, scale * term.loss / self._batches, latents)
                if at_latents is not None:
                    deferred[name] = at_latents
            else:
                loss = loss + term.weight * term.loss
                self._add_deferred(name, term.weight)
        if latents is not None:
            latents.retain_grad()
        backward(scale * loss / self._batches)
        gradient = None if latents is None else latents.grad
        result = BatchResult(
            terms=terms.detach(),
            codebook=output.quantized.metrics,
            token_ids=output.quantized.token_ids,
            gradient=gradient,
            deferred=deferred,
            scale=scale,
        )
        self._results.append(result)

    def _defer(self, name: str, loss: Float[Tensor, ""], latents: Tensor | None) -> Tensor | None:
        """Add up the parameters' gradients separately, and return that of the latents."""
        before = [] if latents is None else [latents]
        found = grad(loss, [*before, *self._parameters], retain_graph=True, allow_unused=True)
        at_latents, gradients = found[: len(before)], found[len(before) :]
        own = self._deferred.setdefault(name, {})
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:  # not added in place: gradients may share memory
                total = own.get(parameter)
                own[parameter] = gradient if total is None else total + gradient
        return at_latents[0] if at_latents else None

    def _add_deferred(self, name: str, weight: Tensor | float) -> None:
        """Add what was deferred, before the last backward pass reduces all gradients over ranks."""
        for parameter, gradient in self._deferred.pop(name, {}).items():
            if parameter.grad is None:  # no other term reaches it
                # In its own layout: torch's fused AdamW takes any other for it, on a CPU.
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad += weight * gradient

    def report(self, window: Window) -> None:
        """Report all batches of the step to a window, after its last one."""
        last = self._results[-1].terms
        for result in self._results:
            gradient, health = result.gradient, dict(result.codebook)
            if gradient is not None:
                for name, deferred in result.deferred.items():
                    weight = last.balanced[name].weight
                    assert weight is not None, "it is known at the last batch"
                    gradient = gradient + weight * deferred
                # The loss of the step is a mean over the samples of all batches.
                norms = gradient.flatten(1).double().norm(dim=1) * len(gradient) * self._batches
                health["encoder_gradient"] = norms.mean() / result.scale
            window.add(result.terms.logged(last), health, result.token_ids)
