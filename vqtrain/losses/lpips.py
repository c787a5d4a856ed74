"""LPIPS as a loss."""

from collections.abc import Mapping, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.layers.frozen import Frozen
from vqtrain.layers.lpips import check_images, load_lpips
from vqtrain.losses.base import LossTerm
from vqtrain.ops.precision import at_least_float32, without_autocast


@final
class LPIPSLoss(LossTerm):
    """The mean LPIPS distance of images, in the features of a trained classifier.

    Args:
        network: ``vgg``, ``alex`` or ``squeeze``.
        weights: Paths of pretrained weights by the name of their network; None to look in torch's
            cache. See ``vqtrain.weights``.
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images.

    Raises:
        ConfigError: If there is no such network, or the images do not fit it.
        WeightsError: If its weights are missing or damaged.

    References:
        Zhang et al. 2018, arXiv:1801.03924.
    """

    axes = 2

    def __init__(
        self,
        *,
        network: str,
        weights: Mapping[str, str | None],
        in_channels: int,
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        check_images(network, in_channels, sample_size)
        self.network = Frozen(load_lpips(network, weights.get(network)))

    def forward(
        self, reconstructions: Float[Tensor, "b c h w"], samples: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Compare images in [-1, 1]."""
        with without_autocast(samples):
            distance = self.network(at_least_float32(reconstructions), at_least_float32(samples))
        return distance.mean()
