"""Gradients that are computed in parts, and scaled where half precision would lose them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import grad
from torch.autograd.function import FunctionCtx, once_differentiable

from vqtrain.ops.precision import without_autocast


class WithGradient(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx: FunctionCtx, point: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """Return ``value``, as a function of ``point`` whose gradient is ``gradient``."""
        del point
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, outer: Tensor) -> tuple[Tensor, None, None]:
        """Apply the chain rule."""
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch sets it
        return outer * gradient, None, None


def gradients_of(
    terms: Sequence[Float[Tensor, ""]], points: Sequence[Tensor], scale: Float[Tensor, ""] | float
) -> list[Tensor]:
    """Return the gradients of a sum at some points, scaled on the way; zero where it is unused."""
    total = scale * torch.stack(list(terms)).sum()
    with without_autocast(total):
        return [own / scale for own in grad(total, points, materialize_grads=True)]


def gradient_at(
    point: Float[Tensor, "*shape"],
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    scale: Float[Tensor, ""] | float,
) -> Float[Tensor, "*shape"]:
    """Return the gradient at a point by those at the outputs, scaled on the way.

    Autocast is off, as it would narrow the gradients of what was computed in float32.
    """
    with without_autocast(point):
        scaled = [scale * own for own in gradients]
        (found,) = grad(outputs, point, scaled, retain_graph=True)
    return found / scale


def with_gradients(
    points: Sequence[Tensor], value: Float[Tensor, ""], gradients: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """Return a value, as a function of several points whose gradients are known."""
    first: Tensor = WithGradient.apply(points[0], value, gradients[0])
    rest = zip(points[1:], gradients[1:], strict=True)
    return first + sum(
        WithGradient.apply(point, torch.zeros_like(value), own) for point, own in rest
    )
