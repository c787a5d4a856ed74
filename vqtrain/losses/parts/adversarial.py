"""Adversarial training: the losses of both sides, and what stabilizes the discriminator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Protocol, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqtrain import distributed
from vqtrain.losses.adversarial.base import AdversarialLoss, Logits
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight
from vqtrain.losses.parts.augmentation import augment, blurred
from vqtrain.losses.parts.lecam import LeCam, mean_logit
from vqtrain.ops.precision import at_least_float32, without_autocast
from vqtrain.ops.seeds import seed_for
from vqtrain.ranges import FINITE, at_least, check_fields, within

# Of samples, or of what the discriminator sees of them.
Network = Callable[[Tensor], Sequence[Logits]]


# For each tensor of logits, the maps of the layers before it.
Features = Sequence[Sequence[Tensor]]


class Judged(Protocol):
    """Logits, and features."""

    @property
    def logits(self) -> Sequence[Logits]:
        """As the network returns them."""

    @property
    def features(self) -> Features:
        """Of the same network."""


@final
@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """What the discriminator sees, and minimizes besides its adversarial loss.

    Args:
        every: Steps between its updates, at least 1.
        augment: Probability of each augmentation of what it sees, in [0, 1]; see ``augment``.
        cutout: Sides of the augmentation's cutout, in sides of an image, in [0, 1].
        blur_steps: Steps from its first one over which a blur of what it sees fades, at least 0.
        lecam_weight: Of ``LeCam``, at least 0.
        lecam_decay: Of its averages, in [0, 1).
        r1_weight: Of the penalty on gradients at real samples, at least 0.
        r1_every: Updates from one computation of it to the next, at least 1; the penalty is
            multiplied by this number.
        consistency_weight: Of the squared difference between the logits of a sample and those of
            its augmentation, at least 0.

    Raises:
        ConfigError: If a value is out of range.

    References:
        Mescheder et al. 2018, arXiv:1801.04406, equation 9 (R1), and Karras et al. 2020,
        arXiv:1912.04958, section 3.1, for computing it now and then; Zhao et al. 2020,
        arXiv:2002.04724 (consistency). Deviation: with several logits a sample, R1 is of their
        mean.
    """

    every: Annotated[int, at_least(1)]
    augment: Annotated[float, within(0, 1)]
    cutout: Annotated[float, within(0, 1)]
    blur_steps: Annotated[int, at_least(0)]
    lecam_weight: Annotated[float, at_least(0), FINITE]
    lecam_decay: Annotated[float, within(0, 1, below_high=True)]
    r1_weight: Annotated[float, at_least(0), FINITE]
    r1_every: Annotated[int, at_least(1)]
    consistency_weight: Annotated[float, at_least(0), FINITE]

    def __post_init__(self) -> None:
        check_fields(self, "loss.discriminator")

    @property
    def are_of_images(self) -> bool:
        """Whether something here is defined for images alone."""
        return max(self.augment, self.blur_steps, self.consistency_weight) > 0


@dataclass(frozen=True, kw_only=True)
class AdversarialTerms:
    """Both sides' losses of one batch.

    Attributes:
        generator: Unweighted.
        discriminator: With all that the discriminator minimizes; None if it is not updated.
        parts: What to log of it, detached.
        features: How far features of reconstructions are from those of samples, unweighted; None if
            they are not matched.
    """

    generator: Float[Tensor, ""]
    discriminator: Float[Tensor, ""] | None
    parts: Mapping[str, Tensor]
    features: Float[Tensor, ""] | None = None


@final
class AdversarialTraining(nn.Module):
    """Both losses of adversarial training, and the weight of the generator's.

    Args:
        loss: What the generator and the discriminator minimize.
        weight: Of the generator's term; its first step is also the discriminator's.
        layer: Name of the weight in the tokenizer at which an adaptive weight compares gradients;
            None for that of the decoder's last layer.
        settings: Of the discriminator.
        feature_weight: Of matching features, with the steps of ``weight`` and never adaptive; 0 to
            leave them alone.
    """

    def __init__(
        self,
        *,
        loss: AdversarialLoss,
        weight: AdaptiveWeight,
        layer: str | None,
        settings: DiscriminatorSettings,
        feature_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight
        self.feature_weight = replace(weight, weight=feature_weight, adaptive=False)
        self.layer, self.settings = layer, settings
        self.lecam = LeCam(decay=settings.lecam_decay) if settings.lecam_weight > 0 else None
        self.begin_step(0, 0)

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step, with the same arguments on every rank."""
        self._seed, self._batches = seed_for(seed, "adversarial", step), 0

    def update(self) -> None:
        """End a step; collective."""
        if self.lecam is not None:
            self.lecam.update()

    def discard_step(self) -> None:
        """End a step that is skipped: leave everything as it was before."""
        if self.lecam is not None:
            self.lecam.discard_step()

    def updates_discriminator(self, step: int) -> bool:
        """Say whether the discriminator is updated at a step."""
        since = step - self.weight.start_step
        return self.weight.enabled(step) and since % self.settings.every == 0

    def generator(self, fake: Sequence[Logits]) -> Float[Tensor, ""]:
        """Return the generator's unweighted loss."""
        return mean_over(self.loss.generator, fake)

    def discriminator(self, real: Sequence[Logits], fake: Sequence[Logits]) -> Float[Tensor, ""]:
        """Return the discriminator's adversarial loss."""
        return mean_over(self.loss.discriminator, real, fake)

    def forward(
        self,
        discriminator: Network,
        reconstructions: Float[Tensor, "b c *size"],
        samples: Float[Tensor, "b c *size"],
        step: int,
        judge: Callable[[Tensor], Judged] | None = None,
    ) -> AdversarialTerms:
        """Compute the losses of one batch of a step in which adversarial training is enabled.

        Args:
            discriminator: The network, in training mode.
            reconstructions: In at least float32, with gradients.
            samples: In [-1, 1].
            step: Number of the step, from 0.
            judge: The discriminator with its features, to match them; None not to.
        """
        settings = self.settings
        places = distributed.places(self._batches, len(samples))
        self._batches += 1

        def seen(images: Tensor, role: str) -> Tensor:
            blur = 1 - (step - self.weight.start_step) / max(1, settings.blur_steps)
            if blur > 0 and settings.blur_steps > 0:
                images = blurred(images, blur)
            if settings.augment == 0:
                return images
            seed = seed_for(self._seed, role)
            return augment(
                images,
                probability=settings.augment,
                cutout=settings.cutout,
                seed=seed,
                places=places,
            )

        def consistency(logits: Sequence[Logits], images: Tensor, role: str) -> Tensor:
            seed = seed_for(self._seed, "consistency", role)
            images = augment(
                images, probability=1.0, cutout=settings.cutout, seed=seed, places=places
            )
            return mean_over(squared_difference, logits, discriminator(images))

        fake, of_fake = judged(discriminator, judge, seen(reconstructions, "fake"))
        generator = self.generator(fake)
        is_updated = self.updates_discriminator(step)
        if not is_updated and judge is None:
            return AdversarialTerms(generator=generator, discriminator=None, parts={})
        shown = seen(samples, "real")
        with torch.set_grad_enabled(is_updated):
            real, of_real = judged(discriminator, judge, shown)
        features = None if judge is None else feature_distance(of_fake, of_real)
        if not is_updated:
            return AdversarialTerms(
                generator=generator, features=features, discriminator=None, parts={}
            )
        total = self.discriminator(real, fake)
        more: dict[str, Tensor] = {}
        if self.lecam is not None:
            more["lecam"] = settings.lecam_weight * self.lecam(real, fake)
        if settings.consistency_weight > 0:
            differences = [
                consistency(real, samples, "real"),
                consistency(fake, reconstructions.detach(), "fake"),
            ]
            more["consistency"] = settings.consistency_weight * torch.stack(differences).sum()
        updates = (step - self.weight.start_step) // settings.every
        if settings.r1_weight > 0 and updates % settings.r1_every == 0:
            scale = settings.r1_weight / 2 * settings.r1_every
            more["r1"] = scale * gradient_penalty(discriminator, shown)
        total = total + sum(more.values())
        parts = {name: term.detach() for name, term in more.items()}
        parts |= {"logits_real": mean_logit(real), "logits_fake": mean_logit(fake)}
        parts["total"] = total.detach()
        return AdversarialTerms(
            generator=generator, features=features, discriminator=total, parts=parts
        )


def judged(
    discriminator: Network, judge: Callable[[Tensor], Judged] | None, samples: Tensor
) -> tuple[Sequence[Logits], Features]:
    """Return the logits of samples, and their features if they are asked for."""
    if judge is None:
        return discriminator(samples), []
    found = judge(samples)
    return found.logits, found.features


def gradient_penalty(
    discriminator: Network, samples: Float[Tensor, "b c *size"]
) -> Float[Tensor, ""]:
    """Return the mean squared norm of a sample's gradient, of the mean of its logits.

    It is differentiable in the parameters of the discriminator, and computed outside autocast.
    """
    samples = at_least_float32(samples).detach().requires_grad_()
    # Of torch's implementations of attention one alone has second derivatives.
    with without_autocast(samples), sdpa_kernel(SDPBackend.MATH):
        logits = discriminator(samples)
        means = torch.stack([each.flatten(1).mean(1) for each in logits]).mean(0)
        (gradient,) = grad(means.sum(), samples, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()


def squared_difference(one: Logits, other: Logits) -> Float[Tensor, ""]:
    """Return the mean squared difference of two tensors of logits."""
    return (one - other).square().mean()


def mean_over(
    loss: Callable[..., Float[Tensor, ""]], *logits: Sequence[Logits]
) -> Float[Tensor, ""]:
    """Average a loss over a discriminator's tensors of logits."""
    losses = [loss(*map(at_least_float32, each)) for each in zip(*logits, strict=True)]
    return torch.stack(losses).mean()


def feature_distance(fake: Features, real: Features) -> Float[Tensor, ""]:
    """Return the mean absolute difference of features, over maps and then over networks.

    Those of real samples take no gradient.

    References:
        Defossez et al. 2022, arXiv:2210.13438 (EnCodec), its code. Deviation from the paper: it is
        not divided by the mean size of the real features.
    """
    distances = []
    for maps in zip(fake, real, strict=True):
        pairs = zip(*maps, strict=True)
        each = [(at_least_float32(f) - at_least_float32(r.detach())).abs().mean() for f, r in pairs]
        distances.append(torch.stack(each).mean())
    return torch.stack(distances).mean()
