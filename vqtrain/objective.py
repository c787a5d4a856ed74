"""What is minimized: the terms of the loss, put together in one place."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.function import FunctionCtx, once_differentiable

from vqtrain import distributed
from vqtrain.discriminators.base import Discriminator
from vqtrain.losses.adversarial import AdversarialLoss
from vqtrain.losses.perceptual import PerceptualLoss
from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.ops.precision import at_least_float32
from vqtrain.tokenizer.model import Reconstruction


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The objective of one batch.

    Attributes:
        total: The one scalar that is differentiated: it moves the generator by its own terms and
            the discriminator by its own.
        parts: Detached, weighted terms to log, ``generator/...`` and ``discriminator/...``.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Tensor]


class WithGradient(torch.autograd.Function):
    """A value whose gradient has been worked out already."""

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

    The terms that judge a reconstruction are differentiated up to its pixels first, one after the
    other, and the sum of these gradients goes on through the autoencoder once. So the discriminator
    judges each reconstruction once for both sides, no term is differentiated twice for the sake of
    the adaptive weight, and the perceptual network's memory is free again before the rest begins.

    Args:
        reconstruction: Compares reconstructions with images, pixel by pixel.
        perceptual: Compares them in the features of a trained network, or None.
        discriminator: Tells them from images, or None.
        adversarial: The game with the discriminator.
    """

    def __init__(
        self,
        *,
        reconstruction: ReconstructionLoss,
        perceptual: PerceptualLoss | None,
        discriminator: Discriminator | None,
        adversarial: AdversarialLoss,
    ) -> None:
        super().__init__()
        self.reconstruction, self.perceptual = reconstruction, perceptual
        self.discriminator, self.adversarial = discriminator, adversarial

    def plays(self, step: int) -> bool:
        """Say whether the discriminator takes part in a step."""
        return self.discriminator is not None and self.adversarial.is_on(step)

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        output: Reconstruction,
        last_weight: Float[Tensor, "..."],
        step: int,
    ) -> Terms:
        """Compute the terms of one batch.

        Args:
            images: In [-1, 1].
            output: What the tokenizer made of them, with gradients.
            last_weight: The weight of the decoder's last layer.
            step: Number of the step, from 0.
        """
        made = at_least_float32(output.images)
        pixels = made.detach().requires_grad_()
        terms = {"reconstruction": self.reconstruction(pixels, images)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(pixels, images)
        (gradient,) = grad(sum(terms.values()), pixels)
        parts: dict[str, Tensor] = {}
        total = images.new_zeros(())
        if self.discriminator is not None and self.plays(step):
            fake, real = self.discriminator(pixels), self.discriminator(images)
            adversarial = self.adversarial.generator(fake)
            (pull,) = grad(adversarial, pixels, retain_graph=True)
            self.adversarial.observe(
                *(grad(made, last_weight, g, retain_graph=True)[0] for g in (gradient, pull))
            )
            scale = self.adversarial.scale(step)
            gradient = gradient + scale * pull
            terms["adversarial"] = scale * adversarial
            total = self.adversarial.discriminator(real, fake)
            parts["discriminator/total"] = total.detach()
            parts["discriminator/logits_real"] = at_least_float32(real.detach()).mean()
            parts["discriminator/logits_fake"] = at_least_float32(fake.detach()).mean()
        elif self.discriminator is not None and distributed.is_running():
            # Gradients that are reduced over ranks wait for every parameter.
            total = 0.0 * torch.stack([p.sum() for p in self.discriminator.parameters()]).sum()
        judged = torch.stack([term.detach() for term in terms.values()]).sum()
        terms["codebook"] = output.quantized.loss
        parts |= {f"generator/{name}": term.detach() for name, term in terms.items()}
        parts["generator/total"] = judged + output.quantized.loss.detach()
        total = total + WithGradient.apply(made, judged, gradient) + output.quantized.loss
        return Terms(total=total, parts=parts)
