"""The distance of images in the patch tokens of a frozen vision model."""

from collections.abc import Mapping, Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vqtrain.layers.vision import VisionModel, require_images
from vqtrain.losses.base import LossTerm
from vqtrain.ops.precision import at_least_float32, without_autocast
from vqtrain.ranges import at_least, checked


@final
class DINOLoss(LossTerm):
    """One minus the cosine of each pair of patch tokens, averaged over tokens and blocks.

    Args:
        model: The name of a vision transformer of timm.
        size: Height and width to which images are resized, in px; a multiple of its patches.
        blocks: Numbers of the blocks whose outputs are compared, from 0 and ascending, after the
            final normalization.
        weights: Its file is ``weights.perceptual``; None to look in the cache of the Hugging Face
            hub.
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images.

    Raises:
        ConfigError: If there is no such model or block, or the samples are no such images.
        WeightsError: If its weights are missing or damaged.

    References:
        Ma et al. 2026, arXiv:2602.02493 (P-DINO): the last block of DINOv2.
    """

    axes = 2

    @checked
    def __init__(
        self,
        *,
        model: str,
        size: Annotated[int, at_least(1)],
        blocks: Sequence[int],
        weights: Mapping[str, str | None],
        in_channels: int,
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        require_images("dino", in_channels, sample_size)
        self.model = VisionModel(
            model=model,
            size=(size, size),
            blocks=blocks,
            norm=True,
            class_token=False,
            key="perceptual",
            given=weights.get("perceptual"),
        )

    def forward(
        self, reconstructions: Float[Tensor, "b c h w"], samples: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Compare images in [-1, 1]."""
        with without_autocast(samples):
            with torch.no_grad():
                targets = self.model(at_least_float32(samples))
            found = self.model(at_least_float32(reconstructions))
            cosines = [
                cosine_similarity(mine, target, dim=1).mean()
                for mine, target in zip(found, targets, strict=True)
            ]
        return 1 - torch.stack(cosines).mean()
