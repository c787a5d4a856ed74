"""A discriminator on the features of a frozen vision transformer, such as DINO."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import require
from vqtrain.layers.norm import group_norm
from vqtrain.layers.vision import VisionModel, require_images
from vqtrain.ops.seeds import seed_for
from vqtrain.ranges import at_least, checked, within

# Tokens that a head sees around each one, along the sequence and around its ends.
KERNEL_SIZE = 9


@final
class TokenHead(nn.Module):
    """Gives a logit for each token of a sequence, whose ends are joined.

    Args:
        channels: Of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        pointwise = nn.Conv1d(channels, channels, 1)
        around = nn.Conv1d(
            channels, channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2, padding_mode="circular"
        )
        self.first = nn.Sequential(pointwise, group_norm(channels), nn.LeakyReLU(0.2))
        self.second = nn.Sequential(around, group_norm(channels), nn.LeakyReLU(0.2))
        self.to_logits = nn.Conv1d(channels, 1, 1)
        for layer in (pointwise, around, self.to_logits):
            nn.init.xavier_normal_(layer.weight, gain=0.5)
            assert layer.bias is not None, "it has one, as none was declined"
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "b z n"]) -> Float[Tensor, "b 1 n"]:
        """Return the logits."""
        x = self.first(tokens)
        return self.to_logits((self.second(x) + x) * 0.5**0.5)


@final
class DINODiscriminator(Discriminator):
    """Classifies the patch tokens of several blocks of a frozen model, each by a head of its own.

    The model is in no checkpoint and is not trained. It sees images at one size: either the whole
    image, resized, or a random part of a larger one. All samples and reconstructions of a step are
    seen alike, by its number and the seed of the run, so a step does not depend on how it is split
    over batches and ranks.

    Args:
        in_channels: Channels of an image, 1 or 3.
        sample_size: Height and width of the images.
        model: The name of a vision transformer of timm with a class token, which is added to the
            tokens of the patches.
        size: Side of the square that the model sees, in px: a multiple of its patches.
        blocks: Numbers of the blocks whose outputs are classified, from 0 and ascending.
        crop_probability: Of a step that sees a part of the images, if they are larger, in [0, 1].
        weights: The model's file is ``weights.discriminator``; None to look in the cache of the
            Hugging Face hub.

    Raises:
        ConfigError: If an argument is out of range, the samples are no such images, or there is no
            such model, or block of it.
        WeightsError: If the model's weights are missing, damaged or those of another model.

    References:
        Sauer et al. 2023, arXiv:2301.09515 (StyleGAN-T); Ma et al. 2025, arXiv:2502.20321 (UniTok),
        for these heads, with group normalization.
        Deviation: UniTok's model is DINOv2 at 252 px, and DINO's here, as in its predecessors; one
            of a step's images is never seen in another way than the others; images are resized with
            antialiasing instead of averaging areas.
    """

    axes = 2

    @checked
    def __init__(
        self,
        *,
        in_channels: int,
        sample_size: Sequence[int],
        model: str,
        size: Annotated[int, at_least(1)],
        blocks: Sequence[int],
        crop_probability: Annotated[float, within(0, 1)],
        weights: Mapping[str, str | None],
    ) -> None:
        super().__init__()
        require_images("the discriminator", in_channels, sample_size)
        self.trunk = VisionModel(
            model=model,
            size=(size, size),
            blocks=blocks,
            norm=False,
            class_token=True,
            key="discriminator",
            given=weights.get("discriminator"),
        )
        rows, columns = self.trunk.grid
        require(
            rows * columns >= KERNEL_SIZE // 2,
            f"size must be at least that of {KERNEL_SIZE // 2} patches, got {size}",
        )
        self.heads = nn.ModuleList(TokenHead(self.trunk.channels) for _ in blocks)
        self.size, self.crop_probability = size, crop_probability
        self.place: tuple[float, float] | None = None

    def begin_step(self, step: int, seed: int) -> None:
        """Draw which part of the images a step sees, if not the whole."""
        draw = Random(seed_for(seed, "crop of the discriminator", step)).random
        is_cropped = draw() < self.crop_probability
        self.place = (draw(), draw()) if is_cropped else None

    def forward(self, samples: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b 1 n"]]:
        """Return one logit per patch and block of images in [-1, 1]: positive for real."""
        sides, size = samples.shape[2:], self.size
        if self.place is not None and min(sides) >= size:
            top, left = (
                int(share * (side - size + 1))
                for share, side in zip(self.place, sides, strict=True)
            )
            samples = samples[..., top : top + size, left : left + size]
        maps = self.trunk(samples)
        return [head(each.flatten(2)) for head, each in zip(self.heads, maps, strict=True)]
