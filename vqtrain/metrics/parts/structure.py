"""Structural similarity of images, as several metrics use it.

torchmetrics smooths with a window of 11 x 11 px by a convolution in float64, which takes half as
long as a tokenizer of 30 million parameters. Here two windows of 11 px follow one another. All but
the means are single additions and products, so rounding does not depend on what else is in a batch.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.metrics.base import SampleMetric, check_pair

WINDOW = "Gaussian window of 11 px, sigma 1.5 px, range 255, K1 0.01, K2 0.03, all channels"
_RADIUS = 5
_HEIGHTS = [math.exp(-(((k - _RADIUS) / 1.5) ** 2) / 2) for k in range(2 * _RADIUS + 1)]
_WEIGHTS = [height / sum(_HEIGHTS) for height in _HEIGHTS]
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

# Two batches of images, as values of 0..255.
Measure = Callable[[Float64[Tensor, "b c h w"], Float64[Tensor, "b c h w"]], Float64[Tensor, " b"]]


def of_each(
    metric: SampleMetric, measure: Measure, reconstruction: Tensor, original: Tensor
) -> Float64[Tensor, " b"]:
    """Measure each image.

    Args:
        metric: It says what samples are taken.
        measure: A function of two batches.
        reconstruction: Pixels of the reconstructions.
        original: Pixels of their originals.
    """
    check_pair(metric, reconstruction, original)
    # One image stays in the cache of a CPU, and a batch takes as many launches of a GPU as one.
    chunks = len(original) if original.device.type == "cpu" else 1
    pairs = zip(reconstruction.chunk(chunks), original.chunk(chunks), strict=True)
    return torch.cat([measure(a.double(), b.double()) for a, b in pairs])


def similarity(
    x: Float64[Tensor, "b c h w"], y: Float64[Tensor, "b c h w"]
) -> tuple[Float64[Tensor, " b"], Float64[Tensor, " b"]]:
    """Compare images by the window, with pixels mirrored at the border.

    Args:
        x: Values of 0..255; at least 11 px a side.
        y: The same.

    Returns:
        The mean similarity of each image; and that of contrast and structure alone, where the
        window lies in the image.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity,
        equation 13.
    """
    x, y = (F.pad(each, [_RADIUS] * 4, mode="reflect") for each in (x, y))
    maps = torch.stack((x, y, x * x + y * y, x * y))
    mean_x, mean_y, squares, products = _smooth(_smooth(maps, -2), -1)
    product, square = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    variances = (squares - square).clamp(min=0.0)  # rounded, it may be below
    contrast = (2.0 * (products - product) + _C2) / (variances + _C2)
    whole = (2.0 * product + _C1) / (square + _C1) * contrast
    inner = contrast[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return _means(whole), _means(inner)


def _smooth(maps: Float64[Tensor, "... h w"], axis: int) -> Float64[Tensor, "... h2 w2"]:
    """Average along an axis, wherever the window fits."""
    length = maps.shape[axis] - 2 * _RADIUS
    total = maps.narrow(axis, _RADIUS, length) * _WEIGHTS[_RADIUS]
    for k in range(_RADIUS):
        pair = maps.narrow(axis, k, length) + maps.narrow(axis, 2 * _RADIUS - k, length)
        total += pair.mul_(_WEIGHTS[k])
    return total


def _means(values: Float64[Tensor, "b c h w"]) -> Float64[Tensor, " b"]:
    """Average one by one: a batch may be summed in another order."""
    return torch.stack([image.mean() for image in values])
