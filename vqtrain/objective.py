"""What is minimized: the sum of all loss terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.build import bind, build_part, in_context, split_kind
from vqtrain.discriminators.base import Discriminator, FeatureDiscriminator
from vqtrain.errors import ConfigError, require
from vqtrain.losses.adversarial.base import AdversarialLoss
from vqtrain.losses.alignment.base import Alignment
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight, GradientNorms
from vqtrain.losses.parts.adversarial import (
    AdversarialTerms,
    AdversarialTraining,
    DiscriminatorSettings,
)
from vqtrain.losses.parts.balancer import Balancer, BalancerSettings
from vqtrain.losses.parts.frames import Frames, for_samples
from vqtrain.losses.parts.terms import BalancedTerm, Place, Terms
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.ops.gradients import WithGradient, gradient_at, gradients_of, with_gradients
from vqtrain.ops.precision import at_least_float32
from vqtrain.ranges import FINITE, at_least, check
from vqtrain.tokenizer.reconstruction import Reconstruction

AnyWeight = TypeVar("AnyWeight", bound=Weight)

# What is logged besides the terms that have names of their own.
OWN = ("codebook", "features", "total")
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
        balancer: Whether terms are balanced, and how; None if not.

    Raises:
        ConfigError: If no term has a weight from step 0 on, the discriminator has no features to
            match, or terms are balanced in two ways.
    """

    def __init__(
        self,
        *,
        terms: Sequence[WeightedTerm],
        discriminator: Discriminator | None,
        adversarial: AdversarialTraining,
        alignment: WeightedAlignment | None = None,
        frames_per_loss: int | None = None,
        balancer: BalancerSettings | None = None,
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
        self.judge = None  # the discriminator with its features, where they are matched
        if discriminator is not None and adversarial.feature_weight.weight > 0:
            require(
                isinstance(discriminator, FeatureDiscriminator),
                "loss.adversarial.feature_weight must be 0: this discriminator has no features "
                "to match, as discriminator=msstft and multiperiod have",
            )
            self.judge = cast(FeatureDiscriminator, discriminator).judge
        self.balancer = None
        if balancer is not None and balancer.enabled:
            for name in self.adaptive_terms:
                raise ConfigError(
                    f"loss.balancer.enabled and loss.{name}.adaptive are two ways to balance the "
                    "same terms: set one of them to false"
                )
            names = [*self.terms, "adversarial", "features"]
            self.balancer = Balancer(names, decay=balancer.decay, norm=balancer.norm)

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
        outputs = [at_least_float32(each) for each in outputs]
        reconstructions, *_ = points = [each.detach().requires_grad_() for each in outputs]
        seen, pair = self.frames.of(samples), [reconstructions, samples]
        losses = {
            name: term.loss(*seen(term.loss, pair + points[1:] * bool(term.loss.extra_channels)))
            for name, term in self.terms.items()
            if term.weight.enabled(step)
        }
        factors = self._factors(step)
        terms = {name: factors[name] * loss for name, loss in losses.items()}
        if self.balancer is None:
            gradients = gradients_of(list(terms.values()), points, scale)
        else:
            gradients = self.balancer.balanced(losses, factors, points, scale)
        at = Place(
            outputs=outputs,
            points=points,
            gradients=gradients,
            layers=layers,
            step=step,
            is_last=is_last,
            scale=scale,
        )
        parts: dict[str, Tensor] = {}
        total = samples.new_zeros(())
        balanced: dict[str, BalancedTerm] = {}
        discriminator = self.discriminator
        if discriminator is not None and self.adversarial_enabled(step):
            both = self.adversarial(discriminator, *seen(discriminator, pair), step, self.judge)
            balanced |= self._against(both, factors, at)
            if both.discriminator is not None:
                total = both.discriminator
            parts |= {f"discriminator/{name}": value for name, value in both.parts.items()}
        alignment, weight = self.alignment, self.alignment_weight
        if alignment is not None and weight is not None and weight.enabled(step):
            latents = output.quantized.z_q if aligned is None else aligned
            loss = alignment(at_least_float32(latents), samples, texts)
            balanced["alignment"] = (
                self._compared("alignment", loss, weight, at)
                if weight.adaptive
                else BalancedTerm(loss=loss, weight=weight.at(step))
            )
        if distributed.is_running():
            total = total + self._unused(step)
        compared = torch.stack([term.detach() for term in terms.values()]).sum()
        terms["codebook"] = output.quantized.loss
        parts |= {f"generator/{name}": term.detach() for name, term in terms.items()}
        parts["generator/total"] = compared + output.quantized.loss.detach()
        total = total + with_gradients(outputs, compared, gradients) + output.quantized.loss
        return Terms(total=total, parts=parts, balanced=balanced)

    def _against(
        self, both: AdversarialTerms, factors: Mapping[str, float | Tensor], at: Place
    ) -> dict[str, BalancedTerm]:
        """Return the generator's terms of adversarial training, as functions of what it decodes."""
        found = {}
        for name, unweighted in (("adversarial", both.generator), ("features", both.features)):
            if unweighted is None:
                continue
            gradient = at.gradient(at.points[0], unweighted)
            loss = WithGradient.apply(at.outputs[0], unweighted.detach(), gradient)
            found[name] = BalancedTerm(loss=loss, weight=factors[name])
            if self.balancer is not None:
                self.balancer.observe(name, gradient)
            elif name == "adversarial":
                found[name] = self._compared(name, loss, self.adversarial.weight, at)
        return found

    def _compared(self, name: str, loss: Tensor, weight: AdaptiveWeight, at: Place) -> BalancedTerm:
        """Compare the gradient of a term with that of the reconstruction terms, at a layer."""
        layer, norms = at.layers[name], self._norms[name]
        norms.observe(
            gradient_at(layer, at.outputs, at.gradients, at.scale), at.gradient(layer, loss)
        )
        found = norms.balance(weight, at.step) if at.is_last else None
        known = weight.at(at.step) if found is None and not weight.adaptive else None
        return BalancedTerm(
            loss=loss, weight=known if found is None else found.weight, balance=found
        )

    def _factors(self, step: int) -> dict[str, float] | dict[str, Tensor]:
        """Return what the terms at the reconstruction are multiplied by in a step."""
        weights: dict[str, Weight] = {name: term.weight for name, term in self.terms.items()}
        if self.discriminator is not None:
            weights["adversarial"] = self.adversarial.weight
        if self.judge is not None:
            weights["features"] = self.adversarial.feature_weight
        known = {name: each.at(step) for name, each in weights.items() if each.enabled(step)}
        return known if self.balancer is None else self.balancer.factors(known)

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
        if self.balancer is not None:
            self.balancer.update()

    def discard_step(self) -> None:
        """End a step that is skipped: leave everything as it was before."""
        self.adversarial.discard_step()
        if self.balancer is not None:
            self.balancer.discard_step()


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
    features = rest.pop("feature_weight", 0.0)
    check(f"{where}.feature_weight", features, Annotated[float, at_least(0), FINITE])
    weight, rest = split(AdaptiveWeight, "adversarial", rest)
    part = in_context("adversarial", split_kind(rest), context, where=where)
    return AdversarialTraining(
        loss=cast(AdversarialLoss, build_part("adversarial", part, where=where)),
        weight=weight,
        layer=layer,
        settings=bind(DiscriminatorSettings, settings, where="loss.discriminator"),
        feature_weight=float(cast(float, features)),
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
