"""The metrics of an evaluation: which images they take, and how their numbers come about."""

from collections.abc import Mapping

import torch

from vqtrain import weights
from vqtrain.evaluation.measure import Measure
from vqtrain.layers.lpips import TRUNKS, load_lpips
from vqtrain.metrics.image import LARGEST_TOO_SMALL, WINDOW, ms_ssim, psnr, ssim
from vqtrain.metrics.lpips import LPIPSDistance
from vqtrain.version import __version__

FID = "fid"
LPIPS = "lpips_"
METRICS = ("psnr", "ssim", "ms_ssim", f"{LPIPS}alex", f"{LPIPS}vgg", FID)
WITHOUT_WEIGHTS = ("psnr", "ssim", "ms_ssim")
LOWER_IS_BETTER = (f"{LPIPS}alex", f"{LPIPS}vgg")

ROUNDING = "clamped, and rounded to the nearest of 256 levels"
SSIM_RULE = "Gaussian window of 11 px, sigma 1.5 px, range 255, K1 0.01, K2 0.03, all channels"
DEFINITIONS = {
    "psnr": "10 log10(255^2 / mean square), in dB, at most 100",
    "ssim": f"{SSIM_RULE}, mirrored border",
    "ms_ssim": f"{SSIM_RULE}, five scales with weights 0.0448 0.2856 0.3001 0.2363 0.1333",
}


def obstacle(name: str, *, image_size: int, channels: int) -> str | None:
    """Say why a metric cannot be measured on images; None if it can.

    Args:
        name: One of ``METRICS``.
        image_size: Side of the images, in px.
        channels: Of the images.
    """
    least = {"ssim": WINDOW, "ms_ssim": LARGEST_TOO_SMALL + 1}.get(name, 1)
    if name.startswith(LPIPS):
        least = TRUNKS[name.removeprefix(LPIPS)].min_size
    if image_size < least:
        return f"{name} needs images of at least {least} px, these have {image_size}"
    if channels not in (1, 3) and name not in WITHOUT_WEIGHTS:
        return f"{name} needs images of 1 or 3 channels, these have {channels}"
    return None


def is_lower_better(name: str) -> bool:
    """Say of a metric, by its name in any table or log, whether less of it is better."""
    return name.startswith(("lpips", "rfid", "fid"))


def load(name: str, *, given: Mapping[str, str | None], device: torch.device) -> Measure:
    """Load what measures single images.

    Args:
        name: One of ``METRICS`` but FID.
        given: Paths of weights by their key; None to look in torch's cache, and to download what
            is not there.
        device: Where the images will be.

    Raises:
        WeightsError: If weights are missing, damaged or those of another network.
    """
    if name.startswith(LPIPS):
        network = name.removeprefix(LPIPS)
        return LPIPSDistance(network=load_lpips(network, given.get(network))).to(device)
    measures: dict[str, Measure] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
    return measures[name]


def rule(name: str, *, given: Mapping[str, str | None]) -> dict[str, str]:
    """Say how a metric that is loaded comes about; the arguments are those of ``load``."""
    if not name.startswith(LPIPS):
        return {
            "library": f"vqtrain {__version__}",
            "definition": DEFINITIONS[name],
            "rounding": ROUNDING,
            "dtype": "float64",
        }
    network = name.removeprefix(LPIPS)
    return {
        "library": f"vqtrain {__version__}",
        "definition": f"LPIPS version 0.1, {network}",
        **weights.describe(network, weights.find(network, given.get(network))),
        "rounding": ROUNDING,
        "dtype": "float32",
    }
