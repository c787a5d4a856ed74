"""A tiny vision model of timm in a file, as it is published."""

from collections.abc import Callable

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate

MODEL = "test_vit.r160_in1k"


@pytest.fixture(scope="session")
def vision_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its weights, with those of its head."""
    path = tmp_path_factory.mktemp("vision") / "model.safetensors"
    save_file(timm.create_model(MODEL).state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def tokens_of(vision_file: str) -> Callable[[Tensor], Tensor]:
    """Compute its tokens at 48 px by timm itself, in float64; a map of 3 x 3 as one of 2 x 2."""
    theirs = timm.create_model(
        MODEL, pretrained=True, pretrained_cfg_overlay={"file": vision_file}, img_size=48
    )
    theirs = theirs.eval().double()

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        seen = interpolate(images, (48, 48), mode="bilinear", antialias=True)
        tokens = theirs.forward_features(seen)[:, 1:]  # its mean and its deviation are 0.5
        patches = tokens.mT.reshape(len(images), -1, 3, 3)
        return interpolate(patches, (2, 2), mode="bilinear", antialias=True)

    return compute
