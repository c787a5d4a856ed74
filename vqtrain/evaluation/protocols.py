"""The four conventions of FID in use, so that a paper's number can be met on its own ground.

They differ in how images are rounded, how they are resized for Inception, and by which library its
features are computed. The distance between two sets of features is the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import final
from unittest.mock import patch

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.build import unknown
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.metrics.fid import in_color, load_inception
from vqtrain.ops.pixels import to_pixels
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import Images, Pixels

INSTALL = 'pip install "vqtrain[evaluate]"'


def adm_pixels(images: Images) -> Pixels:
    """Map images in [-1, 1] to pixels as guided-diffusion does: add a half level, then truncate.

    It is rounding to the nearest, where ``to_pixels`` differs only between two equally near levels.

    Args:
        images: Values outside of [-1, 1] are clamped.

    Example:
        >>> adm_pixels(torch.tensor([[[[-1.5, -1.0, 0.0, 1.0]]]])).tolist()
        [[[[0, 0, 128, 255]]]]
    """
    return (127.5 * images.float() + 128).clamp(0, 255).to(torch.uint8)


def unrounded_pixels(images: Images) -> Float[Tensor, "b c h w"]:
    """Map images in [-1, 1] to floats in [0, 255], clamped and not rounded."""
    return (images.float().clamp(-1, 1) + 1) * 127.5


@final
class TorchFidelityFeatures(nn.Module):
    """Takes pixels as uint8; torch-fidelity resizes by itself.

    Args:
        file: Its weights.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.network = load_inception(str(file))

    def forward(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return features."""
        return self.network(pixels)[0]


@final
class PytorchFIDFeatures(nn.Module):
    """Takes pixels, rounded or not; pytorch-fid resizes by itself.

    Args:
        file: Its weights.

    Raises:
        WeightsError: If they are damaged or those of another network.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        from pytorch_fid import inception

        tensors = weights.read(file)
        try:
            # It downloads its weights itself, and unpickles whatever they are. So it is handed the
            # tensors alone.
            with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: tensors):
                self.network = inception.InceptionV3().eval()
        except RuntimeError as error:
            raise WeightsError(
                f"cannot use {file}: it does not hold the weights of pytorch-fid's Inception, as "
                f"{weights.KNOWN['pytorch_fid'].name} does"
            ) from error

    def forward(self, pixels: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return features."""
        return rearrange(self.network(pixels.float() / 255)[0], "b d 1 1 -> b d")


@final
class CleanFIDFeatures(nn.Module):
    """Takes pixels as uint8, and has clean-fid resize them, on the CPU.

    Args:
        file: Its network, in TorchScript.

    Raises:
        WeightsError: If it is damaged or another network.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        from cleanfid.resize import build_resizer

        self.resize: Callable[[np.ndarray], np.ndarray] = build_resizer("clean")
        # All of it but the resizing and scaling, which other evaluators use.
        layers = getattr(weights.read_script(file).eval(), "layers", None)
        if not isinstance(layers, nn.Module):
            raise WeightsError(
                f"cannot use {file}: it is not the network that clean-fid uses, as "
                f"{weights.KNOWN['clean_fid'].name} is"
            )
        self.layers = layers

    def forward(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return features."""
        pictures = rearrange(pixels.cpu().numpy(), "b c h w -> b h w c")
        resized = torch.from_numpy(np.stack([self.resize(picture) for picture in pictures]))
        scaled = (rearrange(resized, "b h w c -> b c h w").to(pixels.device) - 128) / 128
        features: Tensor = self.layers(scaled)
        return features.flatten(1)


@final
@dataclass(frozen=True, kw_only=True)
class Convention:
    """What one protocol does.

    Attributes:
        package: The library, as it is installed.
        module: The library, as it is imported.
        weights: Its file, a key of ``vqtrain.weights.KNOWN``.
        network: Makes a network of that file, which turns pixels of three channels into features.
        to_pixels: Makes pixels of images.
        rounding: The same in words.
        resize: How pixels are resized for Inception, in words.
        crop: How papers that follow it make squares of pictures, a key of
            ``vqtrain.data.decoding.crops.CROPS``.
    """

    package: str
    module: str
    weights: str
    network: Callable[[Path], nn.Module]
    to_pixels: Callable[[Images], Shaped[Tensor, "b c h w"]]
    rounding: str
    resize: str
    crop: str


TF1_RESIZE = "to 299 px inside the network, bilinear as in TensorFlow 1, no antialiasing"

CONVENTIONS = {
    "torch_fidelity": Convention(
        package="torch-fidelity",
        module="torch_fidelity",
        weights="inception",
        network=TorchFidelityFeatures,
        to_pixels=to_pixels,
        rounding="to the nearest of 256 levels",
        resize=TF1_RESIZE,
        crop="resize",
    ),
    # ADM's evaluator runs the graph of TensorFlow whose weights torch-fidelity's port holds, and
    # the resizing is part of that graph. So the two differ in rounding and crop alone.
    "adm": Convention(
        package="torch-fidelity",
        module="torch_fidelity",
        weights="inception",
        network=TorchFidelityFeatures,
        to_pixels=adm_pixels,
        rounding="127.5 x + 128, clamped to 0..255 and truncated",
        resize=TF1_RESIZE,
        crop="adm",
    ),
    "pytorch_fid": Convention(
        package="pytorch-fid",
        module="pytorch_fid",
        weights="pytorch_fid",
        network=PytorchFIDFeatures,
        to_pixels=unrounded_pixels,
        rounding="none: clamped floats",
        resize="to 299 px inside the network, bilinear with half-pixel centers, no antialiasing",
        crop="resize",
    ),
    "clean_fid": Convention(
        package="clean-fid",
        module="cleanfid",
        weights="clean_fid",
        network=CleanFIDFeatures,
        to_pixels=to_pixels,
        rounding="to the nearest of 256 levels",
        resize="to 299 px by Pillow in float, bicubic, antialiased",
        crop="resize",
    ),
}
PROTOCOLS = tuple(CONVENTIONS)


@final
class Protocol:
    """One convention with its network, which turns images into features.

    Args:
        word: One of ``PROTOCOLS``.
        file: The weights of its network.

    Attributes:
        crop: How papers that follow it make squares of pictures, a key of
            ``vqtrain.data.decoding.crops.CROPS``.
        sha256: Hash of the weights.
        device: Where the network is.
    """

    def __init__(self, word: str, file: Path) -> None:
        self.word, self.convention = word, CONVENTIONS[word]
        self.crop = self.convention.crop
        self.network = self.convention.network(file)
        self._weights = weights.describe(self.convention.weights, file)
        self.sha256 = self._weights["weights_sha256"]
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Protocol":
        """Move the network."""
        self.device = device
        self.network.to(device)
        return self

    def features(self, images: Images) -> Float[Tensor, "b d"]:
        """Return the features of images that a network made, rounded as the protocol has it.

        Originals are pixels and belong into ``features_of_pixels``.

        Args:
            images: In [-1, 1]; what is beyond is clamped. Gray ones are repeated to 3 channels.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels.
            TypeError: If they are not floats.
            ValueError: If they are pixels as floats in [0, 1] or [0, 255].
        """
        if not images.is_floating_point():
            raise TypeError(f"images are floats in [-1, 1], got {images.dtype}")
        if _are_pixels(images):
            raise ValueError(
                "images are floats in [-1, 1], got pixels as floats in [0, 1] or [0, 255]"
            )
        return self._features(self.convention.to_pixels(images.detach()))

    def features_of_pixels(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return the features of pictures as files hold them: originals, or those of a baseline.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels.
            TypeError: If the pixels are not uint8.
        """
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are uint8, got {pixels.dtype}")
        return self._features(pixels)

    @torch.no_grad()
    def _features(self, pixels: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        color = in_color(pixels)
        with without_autocast(color):
            features: Tensor = self.network(color)
        return features

    def describe(self) -> dict[str, str]:
        """Say how features are made, so that a number can be compared with others."""
        own = self.convention
        return {
            "protocol": self.word,
            "library": f"{own.package} {version(own.package)}",
            **self._weights,
            "rounding": own.rounding,
            "resize": own.resize,
            "crop_in_papers": own.crop,
            "dtype": "features in float32, their sums and the distance in float64",
        }


def load(word: str, weights_path: str | None) -> Protocol:
    """Load a protocol's network.

    Args:
        word: One of ``PROTOCOLS``.
        weights_path: File of its weights; None to look in torch's cache, and to download it if it
            is not there.

    Raises:
        ConfigError: If there is no such protocol, or its library is not installed.
        WeightsError: If the weights are missing, damaged or those of another network.
    """
    if word not in CONVENTIONS:
        raise ConfigError(unknown("protocol", word, PROTOCOLS))
    convention = CONVENTIONS[word]
    if find_spec(convention.module) is None:
        raise ConfigError(f"protocol={word} needs the package {convention.package}: {INSTALL}")
    return Protocol(word, weights.find(convention.weights, weights_path))


def _are_pixels(images: Images) -> bool:
    """Tell whether floats are the levels 0..255, as they are or divided by 255.

    There is no false alarm on dark or bright pictures. In [-1, 1] levels from 128 on are odd
    multiples of 1 / 255 and lower ones are negative, while in [0, 1] half of the levels are even
    multiples. What a network makes is no multiple at all, but for a plain 0 or 1.
    """
    if not images.numel() or images.amin() < 0:
        return False
    multiples = images.double() * 255
    whole = multiples.round()
    if not torch.allclose(multiples, whole, rtol=0, atol=1e-3):
        return False
    return bool(((whole % 2 == 0) & (whole > 0)).any())
