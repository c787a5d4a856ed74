"""What is minimized: the sum of all loss terms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.build import bind, build_part, in_context, split_kind
from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import ConfigError, require
from vqtrain.losses.adversarial.base import AdversarialLoss
from vqtrain.losses.alignment.base import Alignment
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight, Balance, GradientNorms
from vqtrain.losses.parts.adversarial import AdversarialTraining, DiscriminatorSettings
from vqtrain.losses.parts.frames import Frames, for_samples
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.ops.gradients import WithGradient, gradient_at, gradients_of, with_gradients
from vqtrain.ops.precision import at_least_float32
from vqtrain.tokenizer.reconstruction import Reconstruction

AnyWeight = TypeVar("AnyWeight", bound=Weight)

# What is logged besides the terms that have names of their own.
OWN = ("codebook", "total")
# Terms whose weights may be relative to the reconstruction gradient.
BALANCED = ("adversarial", "alignment")


@dataclass(frozen=True, kw_only=True)
class WeightedTerm:
    """A loss term, and its weight over the run."""

    loss: LossTerm
    weight: Weight


@dataclass(frozen=True, kw_only=True)
class WeightedAlignment:
    """An alignment of latents, and its weight over the run."""

    loss: Alignment
    weight: AdaptiveWeight


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


class Objective(nn.Module):
    """Adds up the weighted terms that train a tokenizer and its discriminator.

    Each term's gradient is first computed with respect to the reconstruction, and the sum of these
    gradients goes through the autoencoder once. So the discriminator runs once for both networks'
    losses, no term is differentiated twice for the adaptive weight, and the memory of a perceptual
    network is free before the backward pass through the autoencoder begins. An alignment joins that
    pass at the latents; if its weight is adaptive, the gradient of the other terms goes through the
    decoder once more.

    Args:
        terms: Terms that compare reconstructions with samples, in the order of the sum. At least
            one of them has a weight from step 0 on.
        discriminator: Distinguishes reconstructions from samples, or None.
        adversarial: Both losses of adversarial training.
        alignment: Aligns latents, or None.
        frames_per_loss: Frames of each clip that terms and a discriminator of images see; None for
            all. Without a meaning where samples are no clips.

    Raises:
        ConfigError: If no term has a weight from step 0 on.
    """

    def __init__(
        self,
        *,
        terms: Sequence[WeightedTerm],
        discriminator: Discriminator | None,
        adversarial: AdversarialTraining,
        alignment: WeightedAlignment | None = None,
        frames_per_loss: int | None = None,
    ) -> None:
        super().__init__()
        require(
            any(term.weight.enabled(0) for term in terms),
            "the loss has no term that compares reconstructions from step 0 on",
        )
        self.terms = {term.weight.name: term for term in terms}
        self.losses = nn.ModuleList(term.loss for term in terms)  # they move with the module
        self.discriminator, self.adversarial = discriminator, adversarial
        self.alignment = None if alignment is None else alignment.loss
        self.alignment_weight = None if alignment is None else alignment.weight
        self.frames = Frames(frames_per_loss)
        self._norms = {name: GradientNorms() for name in BALANCED}

    def adversarial_enabled(self, step: int) -> bool:
        """Say whether a step trains the generator against the discriminator."""
        return self.discriminator is not None and self.adversarial.weight.enabled(step)

    def discriminator_updated(self, step: int) -> bool:
        """Say whether a step trains the discriminator."""
        return self.discriminator is not None and self.adversarial.updates_discriminator(step)

    def alignment_enabled(self, step: int) -> bool:
        """Say whether a step trains the alignment."""
        return self.alignment_weight is not None and self.alignment_weight.enabled(step)

    @property
    def adaptive_terms(self) -> list[str]:
        """The names of the terms whose weights adapt to gradients."""
        weights = {
            "adversarial": None if self.discriminator is None else self.adversarial.weight,
            "alignment": self.alignment_weight,
        }
        return [name for name, weight in weights.items() if weight is not None and weight.adaptive]

    @property
    def goes_deeper(self) -> bool:
        """Whether gradients are compared at a weight before the decoder's last layer."""
        return "alignment" in self.adaptive_terms or self.adversarial.layer is not None

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step, with the same arguments on every rank."""
        self.adversarial.begin_step(step, seed)
        self.frames.begin_step(step, seed)
        if self.discriminator is not None:
            self.discriminator.begin_step(step, seed)

    def forward(
        self,
        samples: Float[Tensor, "b c *size"],
        output: Reconstruction,
        layers: Mapping[str, Float[Tensor, "..."]],
        step: int,
        *,
        is_last: bool,
        aligned: Float[Tensor, "b d *grid"] | None = None,
        texts: Sequence[str] = (),
        scale: Float[Tensor, ""] | float = 1.0,
    ) -> Terms:
        """Compute the terms of one batch; collective on the last one of a step.

        Args:
            samples: In [-1, 1].
            output: Their reconstructions, with gradients.
            layers: The weights at which the gradients of ``adversarial`` and ``alignment`` are
                compared with those of the reconstruction.
            step: Number of the step, from 0.
            is_last: Whether it is the last batch of the step.
            aligned: What is aligned, with gradients; None for the quantized latents.
            texts: Of the samples, if the alignment needs them.
            scale: Factor of gradients while they are computed, so that those in half precision do
                not underflow. The terms and their gradients are without it.
        """
        outputs = [output.samples, *([] if output.extra is None else [output.extra])]
        decoded, *_ = outputs = [at_least_float32(each) for each in outputs]
        reconstructions, *_ = points = [each.detach().requires_grad_() for each in outputs]
        seen, pair = self.frames.of(samples), [reconstructions, samples]
        terms = {
            name: term.weight.at(step)
            * term.loss(*seen(term.loss, pair + points[1:] * bool(term.loss.extra_channels)))
            for name, term in self.terms.items()
            if term.weight.enabled(step)
        }
        gradients = gradients_of(list(terms.values()), points, scale)
        parts: dict[str, Tensor] = {}
        total, one = samples.new_zeros(()), samples.new_ones(())
        balanced: dict[str, BalancedTerm] = {}

        def balance(
            name: str,
            loss: Tensor,
            weight: AdaptiveWeight,
            gradient: Callable[[Tensor], Tensor],
        ) -> None:
            layer, norms = layers[name], self._norms[name]
            norms.observe(gradient_at(layer, outputs, gradients, scale), gradient(layer))
            found = norms.balance(weight, step) if is_last else None
            known = weight.at(step) if found is None and not weight.adaptive else None
            balanced[name] = BalancedTerm(
                loss=loss, weight=known if found is None else found.weight, balance=found
            )

        discriminator = self.discriminator
        if discriminator is not None and self.adversarial_enabled(step):
            both = self.adversarial(discriminator, *seen(discriminator, pair), step)
            against = gradient_at(reconstructions, [both.generator], [one], scale)
            balance(
                "adversarial",
                WithGradient.apply(decoded, both.generator.detach(), against),
                self.adversarial.weight,
                lambda layer: gradient_at(layer, [decoded], [against], scale),
            )
            if both.discriminator is not None:
                total = both.discriminator
            parts |= {f"discriminator/{name}": value for name, value in both.parts.items()}
        alignment, weight = self.alignment, self.alignment_weight
        if alignment is not None and weight is not None and weight.enabled(step):
            latents = output.quantized.z_q if aligned is None else aligned
            aligning = alignment(at_least_float32(latents), samples, texts)
            if weight.adaptive:
                balance(
                    "alignment",
                    aligning,
                    weight,
                    lambda layer: gradient_at(layer, [aligning], [one], scale),
                )
            else:
                balanced["alignment"] = BalancedTerm(loss=aligning, weight=weight.at(step))
        if distributed.is_running():
            total = total + self._unused(step)
        compared = torch.stack([term.detach() for term in terms.values()]).sum()
        terms["codebook"] = output.quantized.loss
        parts |= {f"generator/{name}": term.detach() for name, term in terms.items()}
        parts["generator/total"] = compared + output.quantized.loss.detach()
        total = total + with_gradients(outputs, compared, gradients) + output.quantized.loss
        return Terms(total=total, parts=parts, balanced=balanced)

    def _unused(self, step: int) -> Tensor | float:
        """Return zero, with a gradient of each parameter that a step does not train.

        DDP waits for a gradient of every parameter.
        """
        networks: list[nn.Module | None] = []
        if not self.discriminator_updated(step):
            networks.append(self.discriminator)
        if not self.alignment_enabled(step):
            networks.append(self.alignment)
        parameters = [p for n in networks if n is not None for p in n.parameters()]
        own = [p.sum() for p in parameters if p.requires_grad]
        return 0.0 * torch.stack(own).sum() if own else 0.0

    def update(self) -> None:
        """End a step; collective."""
        self.adversarial.update()

    def discard_step(self) -> None:
        """End a step that is skipped: leave everything as it was before."""
        self.adversarial.discard_step()


def build_term(
    name: str, group: Mapping[str, object], context: Mapping[str, object]
) -> WeightedTerm | None:
    """Build one term of the loss; None if its kind is none or its weight is 0."""
    require(name not in OWN, f"loss.{name} is no name for a term: {name} is logged already")
    if group.get("kind") == "none":
        return None
    weight, rest = split(Weight, name, group)
    if weight.weight == 0:
        return None
    where = f"loss.{name}"
    part = for_samples("loss", split_kind(rest), context, where=where)
    built = build_part("loss", part, where=where)
    return WeightedTerm(loss=cast(LossTerm, built), weight=weight)


def build_adversarial(
    group: Mapping[str, object], settings: Mapping[str, object], context: Mapping[str, object]
) -> AdversarialTraining:
    """Build both losses of adversarial training, and the weight of the generator's.

    Args:
        group: ``loss.adversarial``.
        settings: ``loss.discriminator``.
        context: What is known of the run.
    """
    where = "loss.adversarial"
    rest = dict(group)
    layer = rest.pop("layer")
    if layer is not None and not isinstance(layer, str):
        raise ConfigError(f"{where}.layer must be a name or null, got {layer!r}")
    weight, rest = split(AdaptiveWeight, "adversarial", rest)
    part = in_context("adversarial", split_kind(rest), context, where=where)
    return AdversarialTraining(
        loss=cast(AdversarialLoss, build_part("adversarial", part, where=where)),
        weight=weight,
        layer=layer,
        settings=bind(DiscriminatorSettings, settings, where="loss.discriminator"),
    )


def build_alignment(
    group: Mapping[str, object], context: Mapping[str, object]
) -> WeightedAlignment | None:
    """Build the alignment of latents; None if its kind is none or its weight is 0."""
    if group.get("kind") == "none":
        return None
    weight, rest = split(AdaptiveWeight, "alignment", group)
    if weight.weight == 0:
        return None
    where = "loss.alignment"
    part = in_context("alignment", split_kind(rest), context, where=where)
    built = build_part("alignment", part, where=where)
    return WeightedAlignment(loss=cast(Alignment, built), weight=weight)


def split(
    kind: type[AnyWeight], name: str, group: Mapping[str, object]
) -> tuple[AnyWeight, dict[str, object]]:
    """Split a term's group into its weight and the arguments of its class."""
    rest = dict(group)
    names = [field.name for field in fields(kind) if field.name != "name"]
    own = {key: rest.pop(key) for key in names if key in rest}
    return bind(kind, {"name": name, **own}, where=f"loss.{name}"), rest
