"""DISTS: how different two images look, with a tolerance for textures."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.layers.lpips import load_lpips
from vqtrain.metrics.base import SampleMetric, check_pair
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import Pixels
from vqtrain.weights import instead_of_download


@final
class DISTS(SampleMetric):
    """The DISTS distance of each image, at least 0, in float32; gray images are repeated.

    torchmetrics computes it. Its own class loads VGG16 again for every batch, from the network if
    need be; here it is loaded once, from a file that is known before the start.

    References:
        Ding et al. 2020, arXiv:2004.07728.
    """

    name, title = "dists", "DISTS"
    higher_is_better = False
    axes, channels, min_size = 2, (1, 3), 16
    weights = ("vgg",)
    package, dtype = "torchmetrics", "float32"
    definition = "DISTS, on VGG16 without resizing"

    def load(self, files: Mapping[str, Path]) -> None:
        """Read the weights; see ``Metric``."""
        from torchmetrics.functional.image import dists  # seconds

        trunk = load_lpips("vgg", str(files["vgg"])).features
        with instead_of_download(dists, "vgg16", SimpleNamespace(features=trunk)):
            self.network = dists.DISTSNetwork().requires_grad_(False).eval()

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)

    @torch.no_grad()
    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the distance of each image; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        shape = len(original), 3, *original.shape[2:]
        pairs = zip(reconstruction.expand(shape), original.expand(shape), strict=True)
        with without_autocast(original):
            # One by one: of a single image the network returns a scalar, of more a list.
            values = [self.network(*(each[None].float() / 255 for each in pair)) for pair in pairs]
        return torch.stack(values).double()
