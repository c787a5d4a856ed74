"""The batches of one step: their gradients, and what they report at its end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd import grad

from vqtrain.objective import Terms
from vqtrain.tokenizer.reconstruction import Reconstruction
from vqtrain.training.window import Window


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """A batch that has been differentiated.

    Attributes:
        terms: Detached.
        codebook: Detached scalars of the codebook.
        token_ids: Ids of the batch.
        gradient: Of the batch's part in the loss of the step, at the latents.
        deferred: The gradient of the adversarial term that it lacks, without its weight.
    """

    terms: Terms
    codebook: Mapping[str, Tensor]
    token_ids: Int64[Tensor, "b k *tokens"]
    gradient: Float[Tensor, "b d *grid"]
    deferred: Float[Tensor, "b d *grid"] | None


@final
class Accumulation:
    """Adds up the gradients of the batches of one step.

    An adaptive adversarial weight is known at the last batch of a step. The batches before it are
    differentiated twice, and the adversarial gradient of the tokenizer's parameters is added up
    separately until then. The last batch, and every batch with a fixed weight, are differentiated
    once.

    Args:
        parameters: Of the tokenizer.
        batches: Number of batches in a step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], batches: int) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._batches = batches
        self.clear()

    def clear(self) -> None:
        """Begin a new step."""
        self._results: list[BatchResult] = []
        self._deferred: dict[nn.Parameter, Tensor] = {}

    def add(self, terms: Terms, output: Reconstruction, backward: Callable[[Tensor], None]) -> None:
        """Add the gradients of one batch.

        Args:
            terms: Its objective.
            output: Its reconstruction.
            backward: Adds the gradients of a scalar to those of the parameters.
        """
        loss, deferred = terms.total, None
        if terms.adversarial is not None:
            if terms.weight is None:
                deferred = self._defer(terms.adversarial / self._batches, output.latents)
            else:
                loss = loss + terms.weight * terms.adversarial
                self._add_deferred(terms.weight)
        output.latents.retain_grad()
        backward(loss / self._batches)
        gradient = output.latents.grad
        assert gradient is not None, "the latents have a gradient after a backward pass"
        result = BatchResult(
            terms=terms.detach(),
            codebook=output.quantized.metrics,
            token_ids=output.quantized.token_ids,
            gradient=gradient,
            deferred=deferred,
        )
        self._results.append(result)

    def _defer(self, loss: Float[Tensor, ""], latents: Tensor) -> Tensor:
        """Add up the parameters' gradients separately, and return that of the latents."""
        at_latents, *gradients = grad(
            loss, [latents, *self._parameters], retain_graph=True, allow_unused=True
        )
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:  # not added in place: gradients may share memory
                total = self._deferred.get(parameter)
                self._deferred[parameter] = gradient if total is None else total + gradient
        return at_latents

    def _add_deferred(self, weight: Tensor | float) -> None:
        """Add what was deferred, before the last backward pass reduces all gradients over ranks."""
        for parameter, gradient in self._deferred.items():
            assert parameter.grad is not None, "other terms reach it too"
            parameter.grad += weight * gradient
        self._deferred.clear()

    def report(self, window: Window) -> None:
        """Report all batches of the step to a window, after its last one."""
        last = self._results[-1].terms
        for result in self._results:
            gradient = result.gradient
            if result.deferred is not None:
                assert last.weight is not None, "it is known at the last batch"
                gradient = gradient + last.weight * result.deferred
            # The loss of the step is a mean over the samples of all batches.
            norms = gradient.flatten(1).double().norm(dim=1) * len(gradient) * self._batches
            health = {**result.codebook, "encoder_gradient": norms.mean()}
            window.add(result.terms.logged(last.weight), health, result.token_ids)
