"""How much a reconstruction looks like its image: PSNR, SSIM and MS-SSIM of single images."""

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import ConfigError
from vqtrain.shapes import Pixels

MAX_PSNR = 100.0  # dB; the PSNR of two equal images is infinite and would spoil every mean
WINDOW = 11  # px
SIGMA = 1.5  # px
# How much each scale counts, from the finest to the coarsest, where a pixel is the mean of 16 x 16.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
LARGEST_TOO_SMALL = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1)  # px


def psnr(reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
    """Return the peak signal-to-noise ratio of each image, in dB, at most 100.

    Args:
        reconstruction: Pixels as uint8, so in the rounded form that people see and store.
        original: Pixels as uint8.

    Raises:
        TypeError: If the pixels are not uint8.
        ValueError: If the shapes differ.

    Example:
        >>> original = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        >>> psnr(original + 255, original), psnr(original, original)
        (tensor([0.], dtype=torch.float64), tensor([100.], dtype=torch.float64))
    """
    _check_pixels(reconstruction, original)
    difference = reconstruction.to(torch.int64) - original.to(torch.int64)
    # A sum of integers is exact, so its order, the device and the batch do not matter.
    mean_square = difference.square().sum(dim=(1, 2, 3)).double() / difference[0].numel()
    return (10.0 * torch.log10(255.0**2 / mean_square)).clamp(max=MAX_PSNR)


def ssim(reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
    """Return the structural similarity of each image, in [-1, 1].

    The window is a Gaussian of 11 px with sigma 1.5 px; K1 is 0.01 and K2 is 0.03; the mean is over
    channels and all positions, with pixels mirrored at the border to fill the window, as in
    torchmetrics. scikit-image leaves out the positions at the border, so its mean differs.

    Args:
        reconstruction: Pixels as uint8, so in the rounded form that people see and store.
        original: Pixels as uint8.

    Raises:
        ConfigError: If the images are smaller than the window.
        TypeError: If the pixels are not uint8.
        ValueError: If the shapes differ.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
        Deviation: on all channels alike, where the paper has luminance only.

    Example:
        >>> image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
        >>> ssim(image, image)
        tensor([1.], dtype=torch.float64)
    """
    _check_pixels(reconstruction, original)
    height, width = original.shape[2:]
    if min(height, width) < WINDOW:
        raise ConfigError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} px, got {height} x {width}"
        )
    x, y = _mirror_border(reconstruction.double()), _mirror_border(original.double())
    luminance, structure = _comparisons(x, y)
    return (luminance * structure).mean(dim=(1, 2, 3))


def ms_ssim(reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
    """Return the multi-scale structural similarity of each image, in [0, 1].

    Structure is compared at five scales, each half as fine as the one before, by means of 2 x 2
    pixels; luminance at the coarsest alone. Window and constants are those of ``ssim``. Means of
    finer scales are over the positions where the window fits into the image; at the coarsest scale
    pixels are mirrored at the border, as in torchmetrics. Negative means count as 0.

    Args:
        reconstruction: Pixels as uint8, so in the rounded form that people see and store.
        original: Pixels as uint8.

    Raises:
        ConfigError: If the images have no more than 160 px along a side.
        TypeError: If the pixels are not uint8.
        ValueError: If the shapes differ.

    References:
        Wang, Simoncelli and Bovik 2003, Multiscale structural similarity for image quality
        assessment. Deviation: on all channels alike, where the paper has luminance only.

    Example:
        >>> image = torch.randint(0, 256, (1, 3, 176, 176), dtype=torch.uint8)
        >>> ms_ssim(image, image)
        tensor([1.], dtype=torch.float64)
    """
    _check_pixels(reconstruction, original)
    height, width = original.shape[2:]
    if min(height, width) <= LARGEST_TOO_SMALL:
        raise ConfigError(
            f"MS-SSIM needs images of more than {LARGEST_TOO_SMALL} px along each side, got "
            f"{height} x {width}"
        )
    x, y = reconstruction.double(), original.double()
    result = x.new_ones(len(x))
    for weight in SCALE_WEIGHTS[:-1]:
        _, structure = _comparisons(x, y)
        result = result * structure.mean(dim=(1, 2, 3)).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    luminance, structure = _comparisons(_mirror_border(x), _mirror_border(y))
    coarsest = (luminance * structure).mean(dim=(1, 2, 3)).clamp(min=0)
    return result * coarsest ** SCALE_WEIGHTS[-1]


def _comparisons(
    x: Float64[Tensor, "b c h w"], y: Float64[Tensor, "b c h w"]
) -> tuple[Float64[Tensor, "b c h_valid w_valid"], Float64[Tensor, "b c h_valid w_valid"]]:
    """Compare luminance, and contrast and structure, wherever the window fits."""
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x = _smooth(x.square()) - mean_x.square()
    variance_y = _smooth(y.square()) - mean_y.square()
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def _mirror_border(x: Float64[Tensor, "b c h w"]) -> Float64[Tensor, "b c h_wide w_wide"]:
    """Continue an image beyond its border, by as much as a window at its edge sees."""
    return F.pad(x, [WINDOW // 2] * 4, mode="reflect")


def _smooth(x: Float64[Tensor, "b c h w"]) -> Float64[Tensor, "b c h_valid w_valid"]:
    """Average over a Gaussian window around every position where it fits into the image."""
    offsets = [index - (WINDOW - 1) / 2 for index in range(WINDOW)]
    window = torch.tensor(offsets, dtype=torch.float64).div(SIGMA).square().mul(-0.5).exp()
    window = window / window.sum()
    # Three times as fast on a CPU as a convolution, for which there is no float64 kernel.
    for axis in (2, 3):
        length = x.shape[axis] - WINDOW + 1
        smoothed = torch.zeros_like(x.narrow(axis, 0, length))
        for index, share in enumerate(window.tolist()):
            smoothed.add_(x.narrow(axis, index, length), alpha=share)
        x = smoothed
    return x


def _check_pixels(reconstruction: Tensor, original: Tensor) -> None:
    """Refuse what would give a number that means something else.

    Raises:
        TypeError: If one of the two is not uint8.
        ValueError: If the shapes differ or are not those of a batch of images.
    """
    for pixels in (reconstruction, original):
        if pixels.dtype != torch.uint8:
            raise TypeError(f"PSNR and SSIM are defined on uint8 pixels, got {pixels.dtype}")
    if reconstruction.shape != original.shape or original.ndim != 4:
        raise ValueError(
            "PSNR and SSIM compare two batches of one shape [b, c, h, w], got "
            f"{list(reconstruction.shape)} and {list(original.shape)}"
        )
