"""What a discriminator sees of an image: an augmentation, and a blur that fades."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.ops.seeds import seed_for
from vqtrain.shapes import Images

SHIFT = 0.125  # largest translation, in sides of the image
COINS, DRAWS = 3, 7


def augment(
    images: Images, *, probability: float, cutout: float, seed: int, places: Sequence[int]
) -> Images:
    """Change colors, translate, and cut a rectangle out, as DiffAugment does; differentiable.

    Each of the three happens to all images of a step together, or to none; its parameters are those
    of an image. Brightness moves by U(-0.5, 0.5), saturation is scaled by U(0, 2) about the mean
    over channels, contrast by U(0.5, 1.5) about the mean over the image. Images move by at most an
    eighth of their sides. What becomes free, and what is cut out, is 0.

    Args:
        images: In [-1, 1]; the result may exceed that.
        probability: Of each of the three.
        cutout: Sides of the rectangle, in sides of the image; 0 for none.
        seed: Of the step and of what the images are used for.
        places: Of the images in the step, on which their parameters depend.

    References:
        Zhao et al. 2020, arXiv:2006.10738, and its code for the constants. Deviation: the
        probability.
    """
    coins = torch.rand(COINS, generator=torch.Generator().manual_seed(seed_for(seed, "coins")))
    has_color, has_shift, has_cutout = (coins < probability).tolist()
    draws = torch.stack(
        [
            torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed_for(seed, place)))
            for place in places
        ]
    ).to(images.device)
    brightness, saturation, contrast, *at = draws.to(images.dtype)[..., None, None, None].unbind(1)
    if has_color:
        images = images + (brightness - 0.5)
        images = scaled_about(images, images.mean(1, keepdim=True), 2 * saturation)
        images = scaled_about(images, images.mean((1, 2, 3), keepdim=True), 0.5 + contrast)
    down, right, row, column = (draw.flatten() for draw in at)
    height, width = images.shape[2:]
    if has_shift:
        images = shifted(images, offsets(down, height), offsets(right, width))
    if has_cutout and cutout > 0:
        rows, columns = covered(row, height, cutout), covered(column, width, cutout)
        images = images * ~(rows[:, None, :, None] & columns[:, None, None, :])
    return images


def scaled_about(images: Images, center: Tensor, factor: Tensor) -> Images:
    """Scale the distance from a center."""
    return center + (images - center) * factor


def offsets(draws: Float[Tensor, " b"], side: int) -> Int64[Tensor, " b"]:
    """Turn draws from U(0, 1) into whole translations of equal probability."""
    largest = int(side * SHIFT + 0.5)
    return (draws * (2 * largest + 1)).floor().long() - largest


def shifted(images: Images, down: Int64[Tensor, " b"], right: Int64[Tensor, " b"]) -> Images:
    """Translate each image, with 0 where nothing is."""
    for axis, offset in ((2, down), (3, right)):
        side = images.shape[axis]
        source = torch.arange(side, device=images.device) - offset[:, None]
        shape = [len(images), 1, 1, 1]
        shape[axis] = side
        index = source.clamp(0, side - 1).view(shape).expand_as(images)
        is_inside = ((source >= 0) & (source < side)).view(shape)
        images = images.gather(axis, index) * is_inside
    return images


def covered(draws: Float[Tensor, " b"], side: int, cutout: float) -> Bool[Tensor, "b side"]:
    """Say which rows, or columns, a cutout covers; near an edge a part of it is outside."""
    size = int(side * cutout + 0.5)
    first = (draws * (side + 1 - size % 2)).floor().long() - size // 2
    distance = torch.arange(side, device=draws.device) - first[:, None]
    return (distance >= 0) & (distance < size)


def blurred(images: Images, share: float) -> Images:
    """Blur by 2^-(x / s)^2 with s = share * sqrt(side / 2), for the shorter side.

    Args:
        images: Of any range.
        share: Of the blur; 0 for none.

    References:
        Ma et al. 2025, arXiv:2502.20321 (UniTok), its code.
    """
    height, width = images.shape[2:]
    scale = share * (min(height, width) / 2) ** 0.5
    radius = min(int(3 * scale), min(height, width) - 1)
    if radius < 1:
        return images
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp2(-(x / scale).square())
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    images = F.pad(images, (radius,) * 4, mode="reflect")
    images = F.conv2d(images, kernel, groups=images.shape[1])
    return F.conv2d(images, kernel.transpose(2, 3), groups=images.shape[1])
