"""The contract every discriminator keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """Distinguishes reconstructions from samples, patch by patch.

    It is always in training mode, and samples and reconstructions come in separate batches.

    Attributes:
        axes: Axes of a sample besides its channels, 2 for images; None for any number. Of clips, a
            discriminator of images is given frames.
        least_batch_size: Smallest number of samples in a batch.
        batch_hint: What a message adds for smaller batches: what takes them; "" if nothing.
        size_hint: What a message adds for samples of a size that it does not take; "" if nothing.
    """

    axes: int | None = None
    least_batch_size: int = 1
    batch_hint: str = ""
    size_hint: str = ""

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step of training, with the same arguments on every rank.

        Discriminators with random numbers of their own override this, so that the numbers do not
        depend on the ranks and batches of the step. Here it does nothing.

        Args:
            step: The number of generator updates before this one.
            seed: The seed of the run, from which random numbers of the step follow.
        """
        del step, seed

    @abstractmethod
    def forward(self, samples: Float[Tensor, "b c *size"]) -> list[Float[Tensor, "b 1 ..."]]:
        """Return logits for samples in [-1, 1]: positive for real, negative for reconstructed.

        Each tensor is one scale or head; losses average over all of them. Samples that are too
        small raise RuntimeError, ValueError or ConfigError.
        """


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a discriminator makes of samples.

    Attributes:
        logits: As ``Discriminator.forward`` returns them.
        features: For each tensor of logits, the maps of the layers before it.
    """

    logits: list[Float[Tensor, "b 1 ..."]]
    features: list[list[Float[Tensor, "b _ ..."]]]


class FeatureDiscriminator(Discriminator, ABC):
    """A discriminator whose inner maps the generator may learn to match."""

    @abstractmethod
    def judge(self, samples: Float[Tensor, "b c *size"]) -> Judged:
        """Return logits and features of samples in [-1, 1]; see ``Discriminator.forward``."""

    def forward(self, samples: Float[Tensor, "b c *size"]) -> list[Float[Tensor, "b 1 ..."]]:
        """Return logits alone."""
        return self.judge(samples).logits
