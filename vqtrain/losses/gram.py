"""The distance of images in the correlations of features: texture, not place."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.layers.frozen import Frozen
from vqtrain.layers.lpips import check_images, load_features
from vqtrain.losses.base import LossTerm
from vqtrain.ops.precision import at_least_float32, without_autocast

# Of the five stages of VGG16.
STAGE_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)


@final
class GramLoss(LossTerm):
    """The weighted squared error of Gram matrices of VGG16's features, summed over its stages.

    The Gram matrix of an image at a stage is ``F F^T / (h w)`` for the features ``F`` of shape
    ``[channels, h w]``; the error is a mean over its elements.

    Args:
        weights: Paths of pretrained weights by the name of their network; None to look in torch's
            cache. See ``vqtrain.weights``.
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images.

    Raises:
        ConfigError: If the images do not fit the network.
        WeightsError: If its weights are missing or damaged.

    References:
        Gatys et al. 2016, arXiv:1508.06576; the weights of the stages are those of the code of
        Cosmos, arXiv:2501.03575.
    """

    axes = 2

    def __init__(
        self,
        *,
        weights: Mapping[str, str | None],
        in_channels: int,
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        check_images("vgg", in_channels, sample_size)
        self.vgg = Frozen(load_features("vgg", weights.get("vgg")))

    def forward(
        self, reconstructions: Float[Tensor, "b c h w"], samples: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Compare images in [-1, 1]."""
        with without_autocast(samples):
            with torch.no_grad():
                targets = self.matrices(at_least_float32(samples))
            found = self.matrices(at_least_float32(reconstructions))
            errors = [
                weight * (mine - target).square().mean()
                for weight, mine, target in zip(STAGE_WEIGHTS, found, targets, strict=True)
            ]
        return torch.stack(errors).sum()

    def matrices(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b f f"]]:
        """Return the Gram matrix of each stage."""
        stages = [stage.flatten(2) for stage in self.vgg.network.activations(images)]
        return [stage @ stage.transpose(1, 2) / stage.shape[2] for stage in stages]
