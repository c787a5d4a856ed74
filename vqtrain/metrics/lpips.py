"""LPIPS: how different two images look to a trained classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.layers.lpips import TRUNKS, load_lpips
from vqtrain.metrics.base import SampleMetric, check_pair
from vqtrain.ops.pixels import to_images
from vqtrain.ops.precision import without_autocast
from vqtrain.ranges import checked, one_of
from vqtrain.shapes import Pixels


@final
class LPIPS(SampleMetric):
    """The LPIPS distance of each image, at least 0, in float32; gray images are repeated.

    torchmetrics cannot take weights from a path, so the network is that of the perceptual loss.

    Args:
        network: ``alex``, ``vgg`` or ``squeeze``; their values are not comparable.

    Raises:
        ConfigError: If there is no such network.

    References:
        Zhang et al. 2018, arXiv:1801.03924, version 0.1 of its code.
    """

    name, title = "lpips", "LPIPS"
    higher_is_better = False
    axes, channels = 2, (1, 3)
    dtype = "float32"

    @checked
    def __init__(self, *, network: Annotated[str, one_of(*TRUNKS)] = "alex") -> None:
        self.name, self.title = f"lpips_{network}", f"LPIPS {network}"
        self.min_size, self.weights = TRUNKS[network].min_size, (network,)
        self.definition = f"LPIPS version 0.1, {network}"

    def load(self, files: Mapping[str, Path]) -> None:
        """Read the weights; see ``Metric``."""
        (network,) = self.weights
        self.network = load_lpips(network, str(files[network])).float()

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)

    @torch.no_grad()
    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the distance of each image; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        images = to_images(original)
        with without_autocast(images):
            return self.network(to_images(reconstruction), images).double()
