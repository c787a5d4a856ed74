"""Between images and tokens of a patch each."""

from collections.abc import Sequence
from typing import final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.shapes import by

HEADS = ("linear", "tanh_mlp", "conv")


def to_patches(
    images: Float[Tensor, "b c h w"], patch_size: int
) -> Float[Tensor, "b values rows columns"]:
    """Cut images into patches; channels come first within one, then its rows."""
    return rearrange(images, "b c (r p) (s q) -> b (c p q) r s", p=patch_size, q=patch_size)


def to_images(
    patches: Float[Tensor, "b values rows columns"], patch_size: int
) -> Float[Tensor, "b c h w"]:
    """Put patches together again: the exact inverse of ``to_patches``."""
    return rearrange(patches, "b (c p q) r s -> b c (r p) (s q)", p=patch_size, q=patch_size)


def grid_of(size: Sequence[int], patch_size: int) -> tuple[int, ...]:
    """Count the patches along each axis of a sample.

    Raises:
        ConfigError: If they do not divide it.
    """
    if any(n < patch_size or n % patch_size for n in size):
        raise ConfigError(
            f"patches of {patch_size} px do not divide a sample of {by(size)}: change the size or "
            "patch_size"
        )
    return tuple(n // patch_size for n in size)


@final
class PixelHead(nn.Module):
    """Turns each token into the pixels of its patch.

    Args:
        kind: One of ``HEADS``. ``linear`` has one bias per channel, as in ViT-VQGAN; ``tanh_mlp``
            has a layer of 4 ``dim`` and tanh before it, as in BSQ-ViT; ``conv`` has a 3x3
            convolution of the pixels after it, which smooths seams, as in TiTok.
        dim: Channels of the tokens.
        out_channels: Channels of the images.
        patch_size: Side of a patch, in px.
    """

    def __init__(self, kind: str, *, dim: int, out_channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        values = out_channels * patch_size**2
        self.to_pixels: nn.Module
        self.hidden = self.smooth = None
        if kind == "linear":
            self.to_pixels = nn.ConvTranspose2d(dim, out_channels, patch_size, stride=patch_size)
        elif kind == "tanh_mlp":
            self.hidden = nn.Conv2d(dim, 4 * dim, 1)
            self.to_pixels = nn.Conv2d(4 * dim, values, 1)
        else:
            self.to_pixels = nn.Conv2d(dim, values, 1)
            self.smooth = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b dim rows columns"]) -> Float[Tensor, "b c h w"]:
        """Predict pixels."""
        if self.hidden is not None:
            x = self.hidden(x).tanh()
        pixels = self.to_pixels(x)
        if isinstance(self.to_pixels, nn.Conv2d):
            pixels = to_images(pixels, self.patch_size)
        return pixels if self.smooth is None else self.smooth(pixels)
