"""The distance of images in the logits of a classifier."""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from vqtrain.layers.classifiers import Classifier
from vqtrain.layers.vision import require_images
from vqtrain.losses.base import LossTerm
from vqtrain.ops.precision import at_least_float32, without_autocast


class LogitsLoss(LossTerm, ABC):
    """The mean squared error of the logits that a frozen classifier of ImageNet gives.

    Args:
        weights: Paths of pretrained weights by the name of their network; None to look in torch's
            cache. See ``vqtrain.weights``.
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images, which are resized to 224 x 224 px.

    Attributes:
        classifier: A key of ``vqtrain.layers.classifiers.BUILDERS``.

    Raises:
        ConfigError: If the samples are no such images.
        WeightsError: If its weights are missing or damaged.
    """

    axes = 2
    classifier: ClassVar[str]

    def __init__(
        self,
        *,
        weights: Mapping[str, str | None],
        in_channels: int,
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        require_images(self.classifier, in_channels, sample_size)
        self.logits = Classifier(name=self.classifier, given=weights.get(self.classifier))

    def forward(
        self, reconstructions: Float[Tensor, "b c h w"], samples: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Compare images in [-1, 1]."""
        with without_autocast(samples):
            with torch.no_grad():
                targets = self.logits(at_least_float32(samples))
            return mse_loss(self.logits(at_least_float32(reconstructions)), targets)
