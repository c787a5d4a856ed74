"""The four protocols of FID in use, so that a value can be compared with that of a paper.

They differ in how images are rounded, how they are resized for Inception, and which package
computes its features. The distance between two sets of features is the same for all.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.errors import WeightsError
from vqtrain.ops.pixels import to_pixels
from vqtrain.shapes import Images, Pixels


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


@contextmanager
def holding(file: Path, known: str, package: str) -> Iterator[None]:
    """Return a context in which weights of another network are an error in one line."""
    try:
        yield
    except RuntimeError as error:
        raise WeightsError(
            f"cannot use {file}: it does not hold the weights of {package}'s Inception, as "
            f"{weights.KNOWN[known].name} does"
        ) from error


@final
class TorchFidelityFeatures(nn.Module):
    """Takes pixels as uint8; torch-fidelity resizes by itself."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        # It imports torchvision, which takes seconds, and most runs do without both.
        from torch_fidelity import FeatureExtractorInceptionV3

        # torch-fidelity loads with weights_only=False, which runs what a file says. So it gets a
        # copy of the tensors alone.
        copy = io.BytesIO()
        torch.save(weights.read(file), copy)
        copy.seek(0)
        with holding(file, "inception", "torch-fidelity"):
            self.network = FeatureExtractorInceptionV3(
                "inception", ["2048"], feature_extractor_weights_path=copy
            )

    def forward(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return features."""
        return self.network(pixels)[0]


@final
class PytorchFIDFeatures(nn.Module):
    """Takes pixels, rounded or not; pytorch-fid resizes by itself."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        from pytorch_fid import inception

        tensors = weights.read(file)
        with (
            holding(file, "pytorch_fid", "pytorch-fid"),
            weights.instead_of_download(inception, "load_state_dict_from_url", tensors),
        ):
            self.network = inception.InceptionV3().eval()

    def forward(self, pixels: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return features."""
        return rearrange(self.network(pixels.float() / 255)[0], "b d 1 1 -> b d")


@final
class CleanFIDFeatures(nn.Module):
    """Takes pixels as uint8, and has clean-fid resize them, on the CPU."""

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
        images = rearrange(pixels.cpu().numpy(), "b c h w -> b h w c")
        resized = torch.from_numpy(np.stack([self.resize(image) for image in images]))
        scaled = (rearrange(resized, "b h w c -> b c h w").to(pixels.device) - 128) / 128
        features: Tensor = self.layers(scaled)
        return features.flatten(1)


@final
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What one protocol does.

    Attributes:
        package: The library, as it is installed.
        module: The library, as it is imported.
        weights: Its file, a key of ``vqtrain.weights.KNOWN``.
        network: Builds a network from that file, from pixels of three channels to features; a
            WeightsError if it is damaged or that of another network.
        resize: How pixels are resized for Inception, in words.
        to_pixels: Rounds reconstructions.
        rounding: The same in words.
        crop: How papers that follow it crop images, a key of ``vqtrain.data.decoding.crops.CROPS``.
    """

    package: str
    module: str
    weights: str
    network: Callable[[Path], nn.Module]
    resize: str
    to_pixels: Callable[[Images], Shaped[Tensor, "b c h w"]] = to_pixels
    rounding: str = "to the nearest of 256 levels"
    crop: str = "resize"


TORCH_FIDELITY = Protocol(
    package="torch-fidelity",
    module="torch_fidelity",
    weights="inception",
    network=TorchFidelityFeatures,
    resize="to 299 px inside the network, bilinear as in TensorFlow 1, no antialiasing",
)

PROTOCOLS = {
    "torch_fidelity": TORCH_FIDELITY,
    # ADM's evaluator runs the graph of TensorFlow whose weights torch-fidelity's port holds, and
    # the resizing is part of that graph. So the two differ in rounding and crop alone.
    "adm": replace(
        TORCH_FIDELITY,
        to_pixels=adm_pixels,
        rounding="127.5 x + 128, clamped to 0..255 and truncated",
        crop="adm",
    ),
    "pytorch_fid": Protocol(
        package="pytorch-fid",
        module="pytorch_fid",
        weights="pytorch_fid",
        network=PytorchFIDFeatures,
        to_pixels=unrounded_pixels,
        rounding="none: clamped floats",
        resize="to 299 px inside the network, bilinear with half-pixel centers, no antialiasing",
    ),
    "clean_fid": Protocol(
        package="clean-fid",
        module="cleanfid",
        weights="clean_fid",
        network=CleanFIDFeatures,
        resize="to 299 px by Pillow in float, bicubic, antialiased",
    ),
}
