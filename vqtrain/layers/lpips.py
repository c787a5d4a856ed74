"""The LPIPS network: a distance between images in the features of a trained classifier."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, final

import torch
import torchvision
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.errors import ConfigError, WeightsError, require
from vqtrain.layers.vision import require_images
from vqtrain.shapes import Images, by

# Channel means and deviations of ImageNet, for images in [-1, 1] instead of [0, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-20  # the square of the 1e-10 that version 0.1 adds to the root


class Trunk(NamedTuple):
    """A classifier, and the layers whose features are used.

    Attributes:
        classifier: Builds it.
        ends: Layers after which features are read, counted from 1.
        channels: Channels of the features there.
        min_size: Smallest height and width of an image, in px; below it a pooling has no input.
    """

    classifier: Callable[..., nn.Module]
    ends: tuple[int, ...]
    channels: tuple[int, ...]
    min_size: int


TRUNKS = {
    "vgg": Trunk(torchvision.models.vgg16, (4, 9, 16, 23, 30), (64, 128, 256, 512, 512), 16),
    "alex": Trunk(torchvision.models.alexnet, (2, 5, 8, 10, 12), (64, 192, 384, 256, 256), 31),
    "squeeze": Trunk(
        torchvision.models.squeezenet1_1,
        (2, 5, 8, 10, 11, 12, 13),
        (64, 128, 256, 384, 384, 512, 512),
        17,
    ),
}


@final
class LPIPS(nn.Module):
    """Perceptual distance between images, by features of VGG16, AlexNet or SqueezeNet.

    Frozen, and always in eval mode: the dropout of its heads' training is not part of it. Built
    without weights; ``load_lpips`` builds it with them.

    Args:
        network: ``vgg``, ``alex`` or ``squeeze``.

    Raises:
        ConfigError: If there is no such network.

    References:
        Zhang et al. 2018, arXiv:1801.03924, version 0.1 of its code. Deviation: the small constant
        of the normalization is inside the root, where it keeps the gradient finite.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, *, network: str) -> None:
        super().__init__()
        if network not in TRUNKS:
            raise ConfigError(f"LPIPS has the networks {', '.join(TRUNKS)}, got {network!r}")
        trunk = TRUNKS[network]
        with torch.device("meta"):  # without memory for weights that are about to be loaded
            features = trunk.classifier(weights=None).features
        assert isinstance(features, nn.Sequential), "the trunk of a classifier is a sequence"
        self.features = features[: trunk.ends[-1]].to_empty(device="cpu")
        self.network, self.ends, self.min_size = network, trunk.ends, trunk.min_size
        self.heads = nn.ParameterList(torch.zeros(channels) for channels in trunk.channels)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def load(
        self,
        classifier: Mapping[str, Shaped[Tensor, "..."]],
        heads: Mapping[str, Shaped[Tensor, "..."]],
    ) -> None:
        """Load the weights of torchvision's classifier and of the ``lpips`` package's heads.

        Raises:
            KeyError: If weights are missing.
            RuntimeError: If weights have other shapes.
        """
        self.load_features(classifier)
        for number, head in enumerate(self.heads):
            _fill(head, heads[f"lin{number}.model.1.weight"].flatten())

    def load_features(self, classifier: Mapping[str, Shaped[Tensor, "..."]]) -> None:
        """Load the weights of torchvision's classifier alone.

        Raises:
            KeyError: If weights are missing.
            RuntimeError: If weights have other shapes.
        """
        for name, parameter in self.features.named_parameters():
            _fill(parameter, classifier[f"features.{name}"])

    def train(self, mode: bool = True) -> "LPIPS":
        """Stay in eval mode, even if the parent module is in training mode."""
        del mode
        return super().train(False)

    def forward(self, reconstruction: Images, images: Images) -> Float[Tensor, " b"]:
        """Return the distance of each pair of images; only the first gets gradients.

        Args:
            reconstruction: Images in [-1, 1], of the network's precision. Gray ones are repeated.
            images: The originals.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels, or are too small for the network.
        """
        with torch.no_grad():
            targets = self.read(images)
        distance = reconstruction.new_zeros(len(reconstruction))
        for found, target, head in zip(self.read(reconstruction), targets, self.heads, strict=True):
            distance = distance + (found - target).square().mean((2, 3)) @ head
        return distance

    def read(self, images: Images) -> list[Float[Tensor, "b _ _ _"]]:
        """Return features of unit length at every end.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels, or are too small for the network.
        """
        features = self.activations(images)
        return [x / (x.square().sum(1, keepdim=True) + EPS).sqrt() for x in features]

    def activations(self, images: Images) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the features at every end as they are.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels, or are too small for the network.
        """
        check_images(self.network, images.shape[1], images.shape[2:])
        # The result has three channels, also for a gray image. It is a new tensor, and so is the
        # output of every convolution: those are what the activations overwrite, before it is read.
        x = (images - self.shift) / self.scale
        features = []
        for number, layer in enumerate(self.features, start=1):
            x = layer(x)
            if number in self.ends:
                features.append(x)
        return features


def check_images(network: str, channels: int, size: Sequence[int]) -> None:
    """Refuse samples that are not images, or do not fit the LPIPS network.

    Raises:
        ConfigError: If there is no such network, or they have neither 1 nor 3 channels, or are too
            small.
    """
    require(network in TRUNKS, f"LPIPS has the networks {', '.join(TRUNKS)}, got {network!r}")
    require_images("LPIPS", channels, size)
    least = TRUNKS[network].min_size
    if min(size) < least:
        raise ConfigError(
            f"LPIPS with {network} needs images of at least {least} x {least} px, got {by(size)}"
        )


def load_lpips(network: str, given: str | None) -> LPIPS:
    """Build LPIPS with its weights, which are downloaded if they are missing.

    Args:
        network: ``vgg``, ``alex`` or ``squeeze``.
        given: Path of torchvision's file of the classifier; None to look in torch's cache.

    Raises:
        ConfigError: If there is no such network.
        WeightsError: If weights are missing, damaged or those of another network.
    """
    lpips = LPIPS(network=network)
    heads = weights.lpips_heads(network)  # first, because it downloads nothing
    return _load(lpips, given, lambda classifier: lpips.load(classifier, heads))


def load_features(network: str, given: str | None) -> LPIPS:
    """Build LPIPS for its ``activations`` alone: with the classifier's weights, without heads.

    Args and errors are those of ``load_lpips``.
    """
    lpips = LPIPS(network=network)
    return _load(lpips, given, lpips.load_features)


def _load(
    lpips: LPIPS, given: str | None, load: Callable[[Mapping[str, Shaped[Tensor, "..."]]], None]
) -> LPIPS:
    """Find the file of the classifier, and load it.

    Raises:
        WeightsError: As ``load_lpips``.
    """
    network = lpips.network
    try:
        file = weights.find(network, given)
    except weights.NotHereError:
        for parameter in lpips.features.parameters():
            nn.init.normal_(parameter, std=0.02)
        return lpips
    try:
        load(weights.read(file))
    except (KeyError, RuntimeError) as error:
        raise WeightsError(
            f"cannot use {file}: it does not hold the weights of {network}, as torchvision's "
            f"{weights.KNOWN[network].name} does"
        ) from error
    return lpips


def _fill(parameter: Tensor, tensor: Tensor) -> None:
    """Copy a tensor into a parameter of its shape.

    Raises:
        RuntimeError: If the shapes differ; copying alone would repeat a smaller tensor.
    """
    if tensor.shape != parameter.shape:
        raise RuntimeError(f"{list(tensor.shape)} does not fit {list(parameter.shape)}")
    parameter.copy_(tensor)
