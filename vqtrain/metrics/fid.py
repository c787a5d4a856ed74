"""FID: the Frechet distance of reconstructions and originals in the features of Inception."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.build import unknown
from vqtrain.errors import ConfigError
from vqtrain.metrics.base import SetMetric, check_shape
from vqtrain.metrics.parts.fid_protocols import PROTOCOLS
from vqtrain.metrics.parts.pixels import check_floats
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import Images, Pixels

USUAL_PROTOCOL = "torch_fidelity"


@final
class FID(SetMetric):
    """FID under one of four protocols; gray images are repeated.

    torchmetrics has one protocol, and its sums are not those of all ranks for a rank without
    images.

    Args:
        protocol: ``torch_fidelity``, ``adm``, ``pytorch_fid`` or ``clean_fid``.

    Raises:
        ConfigError: If there is no such protocol, or its package is not installed.

    References:
        Heusel et al. 2017, arXiv:1706.08500. Deviation: none from the package of each protocol.
    """

    name, title = "rfid", "rFID"
    higher_is_better = False
    axes, channels = 2, (1, 3)
    definition = "Frechet distance of 2,048 features, means and covariances"
    dtype = "features in float32, their sums and the distance in float64"
    dim = 2048

    def __init__(self, *, protocol: str = USUAL_PROTOCOL) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigError(unknown("protocol", protocol, PROTOCOLS))
        self.protocol = own = PROTOCOLS[protocol]
        self.package, self.weights = own.package, (own.weights,)
        if find_spec(own.module) is None:
            raise ConfigError(
                f"protocol={protocol} needs the package {own.package}: "
                'pip install "vqtrain[evaluate]"'
            )
        if protocol != USUAL_PROTOCOL:
            self.name, self.title = f"rfid_{protocol}", f"rFID {protocol}"
        self.rounding = own.rounding
        self.details = {
            "protocol": protocol,
            "resize": own.resize,
            "crop_in_papers": own.crop,
        }

    def load(self, files: Mapping[str, Path]) -> None:
        """Read the weights; see ``Metric``."""
        self.network = self.protocol.network(files[self.protocol.weights])

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)

    def features(self, samples: Images) -> Float[Tensor, "b d"]:
        """Return the features of reconstructions, rounded by the protocol; see ``SetMetric``."""
        check_floats(samples)
        return self._features(self.protocol.to_pixels(samples.detach()))

    def features_of_pixels(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return the features of originals; see ``SetMetric``."""
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are uint8, got {pixels.dtype}")
        return self._features(pixels)

    @torch.no_grad()
    def _features(self, pixels: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        check_shape(self, pixels)
        color = pixels.expand(-1, 3, -1, -1)
        with without_autocast(color):
            features: Tensor = self.network(color)
        return features
