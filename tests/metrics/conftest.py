"""Pairs of images, and weights in the forms in which libraries publish theirs."""

import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn


class Published(nn.Module):
    """The parts of clean-fid's network that are called from outside.

    Args:
        layers: Turn resized and scaled pixels into features.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        """Return features."""
        return self.layers(images)


@pytest.fixture(scope="session")
def clean_fid_file(inception_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write clean-fid's TorchScript with the random weights of ``inception_file``."""
    from pytorch_fid import inception  # slow to import

    weights = torch.load(inception_file, weights_only=True)
    with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        blocks = inception.InceptionV3().eval().blocks
    file = tmp_path_factory.mktemp("clean-fid") / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch advises against TorchScript
        torch.jit.script(Published(nn.Sequential(*blocks, nn.Flatten())).eval()).save(str(file))
    return file


@pytest.fixture(scope="session")
def pair() -> Callable[[tuple[int, ...], int], tuple[Tensor, Tensor]]:
    """Make smooth images with noise, and the same without it, so that SSIM is far from 0."""

    def make(shape: tuple[int, ...], noise: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        b, c, h, w = shape
        phase = torch.rand(b, c, 1, 1, generator=generator) * 6
        rows = torch.arange(h).reshape(h, 1) / 5
        columns = torch.arange(w).reshape(1, w) / 7
        original = (127.5 + 100 * torch.sin(rows + columns + phase)).round()
        change = torch.randint(-noise, noise + 1, shape, generator=generator)
        return (original + change).clamp(0, 255).to(torch.uint8), original.to(torch.uint8)

    return make


class Script(nn.Module):
    """What of StyleGAN-V's TorchScript is called, with a small network in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 2 * 3 * 3, 400)

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        """Return logits, or probabilities."""
        if rescale:
            x = x * 2 - 1
        if resize:
            x = nn.functional.interpolate(x, [x.shape[2], 99, 99])
        pooled = nn.functional.adaptive_avg_pool3d(x, [2, 3, 3]).flatten(1)
        features = self.layer(pooled)
        return features if return_features else features.softmax(1)


@pytest.fixture(scope="session")
def i3d_script_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a TorchScript that is called as StyleGAN-V's I3D is."""
    file = tmp_path_factory.mktemp("styleganv") / "i3d_torchscript.pt"
    with warnings.catch_warnings(), torch.random.fork_rng():
        torch.manual_seed(0)
        warnings.simplefilter("ignore", FutureWarning)  # torch advises against TorchScript
        torch.jit.script(Script().eval()).save(str(file))
    return file
