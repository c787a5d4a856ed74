"""The frozen vision model that latents are aligned with."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.layers.vision import VisionModel, require_images, resized
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import by


@final
class Teacher(nn.Module):
    """Gives the patch tokens of a vision model, after its last block and normalization, as a map.

    Args:
        kind: The alignment that needs it, for messages.
        model: Name of a vision transformer of timm.
        size: Side of the squares that images are resized to for it, in px.
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images.
        aligned_grid: Of what is aligned.
        weights: Paths of pretrained weights by key; ``alignment`` is its own.

    Attributes:
        channels: Of the map.

    Raises:
        ConfigError: If there is no such model, or samples or latents are not in rows and columns.
        WeightsError: If its weights are missing, damaged or those of another model.
    """

    def __init__(
        self,
        *,
        kind: str,
        model: str,
        size: int,
        in_channels: int,
        sample_size: Sequence[int],
        aligned_grid: Sequence[int],
        weights: Mapping[str, str | None],
    ) -> None:
        super().__init__()
        require_images(f"loss/alignment={kind}", in_channels, sample_size)
        if len(aligned_grid) != 2:
            raise ConfigError(
                "a vision model has a map of rows and columns, and what is to be aligned is a grid "
                f"of {by(aligned_grid)}: loss/alignment=cosine takes the output of a layer of two "
                "axes, such as loss.alignment.layer=decoder.queries"
            )
        self.model = VisionModel(
            model=model,
            size=(size, size),
            blocks=None,
            norm=True,
            class_token=False,
            key="alignment",
            given=weights.get("alignment"),
        )
        self.channels = self.model.channels

    @torch.no_grad()
    def forward(
        self, samples: Float[Tensor, "b c h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "b z rows columns"]:
        """Return the map of images in [-1, 1], resized to a grid, bilinear with antialias."""
        with without_autocast(samples):
            (tokens,) = self.model(samples)
            return resized(tokens, grid)
