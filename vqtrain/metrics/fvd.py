"""FVD: the Frechet distance of reconstructed and original clips in the features of I3D."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.build import unknown
from vqtrain.errors import ConfigError
from vqtrain.metrics.base import SetMetric, check_shape
from vqtrain.metrics.parts.fvd_protocols import PROTOCOLS, resized
from vqtrain.metrics.parts.i3d import CLASSES
from vqtrain.metrics.parts.pixels import check_floats
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import Pixels

USUAL_PROTOCOL = "styleganv"


@final
class FVD(SetMetric):
    """FVD under one of two protocols; gray clips are repeated.

    It favors the quality of frames over motion (arXiv:2404.12391). Values of clips of other lengths
    or rates are not comparable, and few clips bias it upward.

    Args:
        protocol: ``styleganv`` or ``videogpt``.

    Raises:
        ConfigError: If there is no such protocol.

    References:
        Unterthiner et al. 2018, arXiv:1812.01717; Skorokhodov et al. 2021, arXiv:2112.14683
        (StyleGAN-V), and Yan et al. 2021, arXiv:2104.10157 (VideoGPT), in the code of
        OmniTokenizer, arXiv:2406.09399. Deviation: see ``truncated``.
    """

    name, title = "rfvd", "rFVD"
    higher_is_better = False
    axes, channels, min_frames = 3, (1, 3), 10
    definition = f"Frechet distance of {CLASSES} logits of I3D, means and covariances"
    dtype = "features in float32, their sums and the distance in float64"
    dim = CLASSES

    def __init__(self, *, protocol: str = USUAL_PROTOCOL) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigError(unknown("protocol", protocol, PROTOCOLS))
        self.protocol = own = PROTOCOLS[protocol]
        self.weights, self.rounding = (own.weights,), own.rounding
        if protocol != USUAL_PROTOCOL:
            self.name, self.title = f"rfvd_{protocol}", f"rFVD {protocol}"
        self.details = {
            "protocol": protocol,
            "resize": "shorter side to 224 px, bilinear, no antialiasing; center crop",
        }

    def load(self, files: Mapping[str, Path]) -> None:
        """Read the weights; see ``Metric``."""
        (name,) = self.weights
        self.network = self.protocol.network(files[name])

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)

    def features(self, samples: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """Return the features of reconstructions, rounded by the protocol; see ``SetMetric``."""
        check_floats(samples)
        return self._features(self.protocol.to_levels(samples.detach()))

    def features_of_pixels(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return the features of originals; see ``SetMetric``."""
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are uint8, got {pixels.dtype}")
        return self._features(pixels)

    @torch.no_grad()
    def _features(self, levels: Shaped[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        check_shape(self, levels)
        clips = resized(levels.expand(-1, 3, -1, -1, -1))
        with without_autocast(clips):
            features: Tensor = self.network(clips)
        return features
