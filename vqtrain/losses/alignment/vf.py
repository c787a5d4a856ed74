"""VA-VAE's alignment of latents with a vision model."""

from collections.abc import Mapping, Sequence
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from vqtrain.losses.alignment.base import Alignment
from vqtrain.losses.alignment.parts.teacher import Teacher
from vqtrain.ops.precision import without_autocast
from vqtrain.ranges import at_least, within


@final
class VF(Alignment):
    """Makes projected latents similar to the tokens of a vision model, up to margins.

    The sum of two means: over positions, by how much the cosine of a latent and its token is below
    1 - ``cosine_margin``; and over all pairs of positions of an image, by how much the cosine of
    two latents differs from that of their two tokens by more than ``distance_margin``.

    Args:
        model: Name of a vision transformer of timm.
        size: Side of the squares that images are resized to for it, in px.
        cosine_margin: In [0, 2].
        distance_margin: In [0, 2].
        in_channels: Channels of the images, 1 or 3.
        sample_size: Height and width of the images.
        aligned_channels: Channels of the latents.
        aligned_grid: Rows and columns of the latents.
        weights: Paths of pretrained weights by key; ``alignment`` is the model's.

    Raises:
        ConfigError: If there is no such model, or latents or samples are not in rows and columns.
        WeightsError: If its weights are missing, damaged or those of another model.

    References:
        Yao et al. 2025, arXiv:2501.01423, section 3.2. Deviation: images are normalized as those
        that the model was trained on; its map is resized to the grid of the latents.
    """

    def __init__(
        self,
        *,
        model: str,
        size: Annotated[int, at_least(1)],
        cosine_margin: Annotated[float, within(0, 2)],
        distance_margin: Annotated[float, within(0, 2)],
        in_channels: int,
        sample_size: Sequence[int],
        aligned_channels: int,
        aligned_grid: Sequence[int],
        weights: Mapping[str, str | None],
    ) -> None:
        super().__init__()
        self.cosine_margin, self.distance_margin = cosine_margin, distance_margin
        self.teacher = Teacher(
            kind="vf",
            model=model,
            size=size,
            in_channels=in_channels,
            sample_size=sample_size,
            aligned_grid=aligned_grid,
            weights=weights,
        )
        self.projection = nn.Conv2d(aligned_channels, self.teacher.channels, 1, bias=False)

    def forward(
        self,
        latents: Float[Tensor, "b d rows columns"],
        samples: Float[Tensor, "b c h w"],
        texts: Sequence[str],
    ) -> Float[Tensor, ""]:
        """Return the sum of both means."""
        del texts
        rows, columns = latents.shape[2:]
        tokens = normalize(self.teacher(samples, (rows, columns)).flatten(2), dim=1)
        with without_autocast(latents):
            projected = normalize(self.projection(latents).flatten(2), dim=1)
            cosines = (projected * tokens).sum(1)
            far = (1 - self.cosine_margin - cosines).relu()
            distances = projected.mT @ projected - tokens.mT @ tokens
            return far.mean() + (distances.abs() - self.distance_margin).relu().mean()
