"""GigaTok's alignment of a layer with a vision model."""

from collections.abc import Mapping, Sequence
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vqtrain.losses.alignment.base import Alignment
from vqtrain.losses.alignment.parts.teacher import Teacher
from vqtrain.ops.precision import without_autocast
from vqtrain.ranges import at_least


@final
class Cosine(Alignment):
    """The negative mean cosine of the tokens of a vision model and what a small MLP makes of a map.

    The MLP has three linear layers with SiLU in between, four times as wide as the map.

    Args:
        layer: Name of the module of the tokenizer whose output is the map, such as
            ``decoder.queries``; None for the quantized latents.
        model: Name of a vision transformer of timm.
        size: Side of the squares that images are resized to for it, in px.
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images.
        aligned_channels: Channels of the map.
        aligned_grid: Its rows and columns.
        weights: Paths of pretrained weights by key; ``alignment`` is the model's.

    Raises:
        ConfigError: If there is no such model, or the output or samples are not in rows and
            columns.
        WeightsError: If its weights are missing, damaged or those of another model.

    References:
        Xiong et al. 2025, arXiv:2504.08736 (GigaTok), section 3.2. Deviation: none known.
    """

    def __init__(
        self,
        *,
        layer: str | None,
        model: str,
        size: Annotated[int, at_least(1)],
        in_channels: int,
        sample_size: Sequence[int],
        aligned_channels: int,
        aligned_grid: Sequence[int],
        weights: Mapping[str, str | None],
    ) -> None:
        super().__init__()
        self.layer = layer
        self.teacher = Teacher(
            kind="cosine",
            model=model,
            size=size,
            in_channels=in_channels,
            sample_size=sample_size,
            aligned_grid=aligned_grid,
            weights=weights,
        )
        width = 4 * aligned_channels
        self.projection = nn.Sequential(
            nn.Linear(aligned_channels, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, self.teacher.channels),
        )

    def forward(
        self,
        latents: Float[Tensor, "b d rows columns"],
        samples: Float[Tensor, "b c h w"],
        texts: Sequence[str],
    ) -> Float[Tensor, ""]:
        """Return the negative mean, in [-1, 1]."""
        del texts
        rows, columns = latents.shape[2:]
        tokens = self.teacher(samples, (rows, columns))
        with without_autocast(latents):
            projected = self.projection(latents.movedim(1, -1)).movedim(-1, 1)
            return -cosine_similarity(projected, tokens, dim=1).mean()
