"""What is minimized: the sum of all loss terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.function import FunctionCtx, once_differentiable

from vqtrain import distributed
from vqtrain.build import bind, build_part, in_context, split_kind
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import require
from vqtrain.losses.adversarial.base import AdversarialLoss
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.adversarial import AdversarialTraining, Balance
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.ops.precision import at_least_float32
from vqtrain.tokenizer.reconstruction import Reconstruction


@dataclass(frozen=True, kw_only=True)
class WeightedTerm:
    """A loss term, and its weight over the run."""

    loss: LossTerm
    weight: Weight


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The objective of one batch: ``total``, and the weighted ``adversarial`` term.

    Attributes:
        total: All terms but the generator's adversarial one. The generator and the discriminator
            each get the gradient of their own terms.
        parts: The same, detached, to log: ``generator/...`` and ``discriminator/...``.
        adversarial: The generator's adversarial term without its weight; None before its start.
        weight: Its weight, or None where that depends on later batches of the step.
        balance: How it compares with the other terms over the whole step, on the last batch.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Tensor]
    adversarial: Float[Tensor, ""] | None = None
    weight: Float[Tensor, ""] | float | None = None
    balance: Balance | None = None

    def detach(self) -> "Terms":
        """Return the same values without their graph."""
        adversarial = None if self.adversarial is None else self.adversarial.detach()
        return replace(self, total=self.total.detach(), adversarial=adversarial)

    def is_finite(self) -> Bool[Tensor, ""]:
        """Say whether the loss is finite."""
        finite = self.total.detach().isfinite()
        return finite if self.adversarial is None else finite & self.adversarial.detach().isfinite()

    def logged(self, weight: Float[Tensor, ""] | float | None) -> dict[str, Tensor]:
        """Return the detached, weighted terms to log, by the adversarial weight of the step."""
        parts = dict(self.parts)
        if self.adversarial is not None:
            assert weight is not None, "the weight is known at the end of a step"
            parts["generator/adversarial"] = weight * self.adversarial.detach()
            parts["generator/total"] = parts["generator/total"] + parts["generator/adversarial"]
        return parts


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


class Objective(nn.Module):
    """Adds up the weighted terms that train a tokenizer and its discriminator.

    Each term's gradient is first computed with respect to the reconstruction, and the sum of these
    gradients goes through the autoencoder once. So the discriminator runs once for both networks'
    losses, no term is differentiated twice for the adaptive weight, and the memory of a perceptual
    network is free before the backward pass through the autoencoder begins.

    Args:
        terms: Terms that compare reconstructions with samples, in the order of the sum. At least
            one of them has a weight from step 0 on.
        discriminator: Distinguishes reconstructions from samples, or None.
        adversarial: Both losses of adversarial training.

    Raises:
        ConfigError: If no term has a weight from step 0 on.
    """

    def __init__(
        self,
        *,
        terms: Sequence[WeightedTerm],
        discriminator: Discriminator | None,
        adversarial: AdversarialTraining,
    ) -> None:
        super().__init__()
        require(
            any(term.weight.enabled(0) for term in terms),
            "the loss has no term that compares reconstructions from step 0 on",
        )
        self.terms = {term.weight.name: term for term in terms}
        self.losses = nn.ModuleList(term.loss for term in terms)  # they move with the module
        self.discriminator, self.adversarial = discriminator, adversarial

    def adversarial_enabled(self, step: int) -> bool:
        """Say whether a step trains the discriminator, and the generator against it."""
        return self.discriminator is not None and self.adversarial.weight.enabled(step)

    def forward(
        self,
        samples: Float[Tensor, "b c *size"],
        output: Reconstruction,
        last_weight: Float[Tensor, "..."],
        step: int,
        *,
        is_last: bool,
    ) -> Terms:
        """Compute the terms of one batch; collective on the last one of a step.

        Args:
            samples: In [-1, 1].
            output: Their reconstructions, with gradients.
            last_weight: The weight of the decoder's last layer.
            step: Number of the step, from 0.
            is_last: Whether it is the last batch of the step.
        """
        decoded = at_least_float32(output.samples)
        reconstructions = decoded.detach().requires_grad_()
        terms = {
            name: term.weight.at(step) * term.loss(reconstructions, samples)
            for name, term in self.terms.items()
            if term.weight.enabled(step)
        }
        (gradient,) = grad(sum(terms.values()), reconstructions)
        parts: dict[str, Tensor] = {}
        total = samples.new_zeros(())
        adversarial: Tensor | None = None
        weight: Tensor | float | None = None
        balance: Balance | None = None
        if self.discriminator is not None and self.adversarial_enabled(step):
            fake, real = self.discriminator(reconstructions), self.discriminator(samples)
            loss = self.adversarial.generator(fake)
            (against,) = grad(loss, reconstructions, retain_graph=True)
            self.adversarial.observe(
                *(grad(decoded, last_weight, g, retain_graph=True)[0] for g in (gradient, against))
            )
            if is_last:
                balance = self.adversarial.balance(step)
                weight = balance.weight
            elif not self.adversarial.adaptive:
                weight = self.adversarial.weight.at(step)
            adversarial = WithGradient.apply(decoded, loss.detach(), against)
            total = self.adversarial.discriminator(real, fake)
            parts["discriminator/total"] = total.detach()
            parts["discriminator/logits_real"] = mean_logit(real)
            parts["discriminator/logits_fake"] = mean_logit(fake)
        elif self.discriminator is not None and distributed.is_running():
            # DDP waits for a gradient of every parameter.
            total = 0.0 * torch.stack([p.sum() for p in self.discriminator.parameters()]).sum()
        compared = torch.stack([term.detach() for term in terms.values()]).sum()
        terms["codebook"] = output.quantized.loss
        parts |= {f"generator/{name}": term.detach() for name, term in terms.items()}
        parts["generator/total"] = compared + output.quantized.loss.detach()
        total = total + WithGradient.apply(decoded, compared, gradient) + output.quantized.loss
        return Terms(
            total=total, parts=parts, adversarial=adversarial, weight=weight, balance=balance
        )


def mean_logit(logits: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Average a discriminator's logits, with equal weight for each of its tensors."""
    return torch.stack([at_least_float32(each.detach()).mean() for each in logits]).mean()


def build_term(
    name: str, group: Mapping[str, object], context: Mapping[str, object]
) -> WeightedTerm | None:
    """Build one term of the loss; None if its kind is none or its weight is 0."""
    if group.get("kind") == "none":
        return None
    weight, rest = split_weight(name, group)
    if weight.weight == 0:
        return None
    where = f"loss.{name}"
    part = in_context("loss", split_kind(rest), context, where=where)
    built = build_part("loss", part, where=where)
    return WeightedTerm(loss=cast(LossTerm, built), weight=weight)


def build_adversarial(
    group: Mapping[str, object], context: Mapping[str, object]
) -> AdversarialTraining:
    """Build both losses of adversarial training, and the weight of the generator's."""
    weight, rest = split_weight("adversarial", group)
    own = ("adaptive", "max_ratio")
    settings: dict[str, object] = {name: rest.pop(name) for name in own if name in rest}
    where = "loss.adversarial"
    part = in_context("adversarial", split_kind(rest), context, where=where)
    built = build_part("adversarial", part, where=where)

    def training(*, adaptive: bool, max_ratio: float) -> AdversarialTraining:
        loss = cast(AdversarialLoss, built)
        return AdversarialTraining(loss=loss, weight=weight, adaptive=adaptive, max_ratio=max_ratio)

    return bind(training, settings, where=where)


def split_weight(name: str, group: Mapping[str, object]) -> tuple[Weight, dict[str, object]]:
    """Split a loss term's group into its weight and the arguments of its class."""
    rest = dict(group)
    names = ("weight", "start_step", "ramp_steps")
    common = {key: rest.pop(key) for key in names if key in rest}
    return bind(Weight, {"name": name, **common}, where=f"loss.{name}"), rest
