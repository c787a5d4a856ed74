"""VQ-VAE-2's networks and two levels, beside a forward pass written from their description."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.formats.vqvae2 import VQVAE2

Weights = dict[str, Tensor]
WIDTH, INSIDE, DIM, CODES = 8, 3, 4, 6


@pytest.fixture
def weights(draw: Callable[..., Weights], images: Tensor) -> Weights:
    """Those of a network with one residual block each, and codes among its latents."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, to: int, of: int, kernel: int, *, up: bool = False) -> None:
        found[f"{name}.weight"] = ((of, to) if up else (to, of)) + (kernel, kernel)
        found[f"{name}.bias"] = (to,)

    def block(name: str) -> None:
        conv(f"{name}.conv.1", INSIDE, WIDTH, 3)
        conv(f"{name}.conv.3", WIDTH, INSIDE, 1)

    conv("enc_b.blocks.0", WIDTH // 2, 3, 4)
    conv("enc_b.blocks.2", WIDTH, WIDTH // 2, 4)
    conv("enc_b.blocks.4", WIDTH, WIDTH, 3)
    block("enc_b.blocks.5")
    conv("enc_t.blocks.0", WIDTH // 2, WIDTH, 4)
    conv("enc_t.blocks.2", WIDTH, WIDTH // 2, 3)
    block("enc_t.blocks.3")
    conv("quantize_conv_t", DIM, WIDTH, 1)
    conv("dec_t.blocks.0", WIDTH, DIM, 3)
    block("dec_t.blocks.1")
    conv("dec_t.blocks.3", DIM, WIDTH, 4, up=True)
    conv("quantize_conv_b", DIM, DIM + WIDTH, 1)
    conv("upsample_t", DIM, DIM, 4, up=True)
    conv("dec.blocks.0", WIDTH, 2 * DIM, 3)
    block("dec.blocks.1")
    conv("dec.blocks.3", WIDTH // 2, WIDTH, 4, up=True)
    conv("dec.blocks.5", 3, WIDTH // 2, 4, up=True)
    drawn = draw(found)
    for level in "tb":
        latents = Published(drawn).latents(images.double())[level].movedim(1, -1).flatten(0, 2)
        table = latents[torch.randperm(len(latents))[:CODES]].T.float()
        drawn[f"quantize_{level}.embed"] = table
        drawn[f"quantize_{level}.cluster_size"] = torch.rand(CODES) + 1
        drawn[f"quantize_{level}.embed_avg"] = table * 2
    return drawn


class Published:
    """Its forward pass in double precision."""

    def __init__(self, weights: Weights) -> None:
        self.weights = {name: item.double() for name, item in weights.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """A convolution that keeps the size, or halves it."""
        weight = self.weights[f"{name}.weight"]
        options = {"stride": stride, "padding": (weight.shape[-1] - 1) // 2}
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], **options)

    def up(self, name: str, x: Tensor) -> Tensor:
        """A convolution that doubles the size."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    def block(self, name: str, x: Tensor) -> Tensor:
        """A residual block."""
        return x + self.conv(f"{name}.conv.3", F.relu(self.conv(f"{name}.conv.1", F.relu(x))))

    def quantize(self, level: str, z: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and codes."""
        table = self.weights[f"quantize_{level}.embed"]
        ids = (z[..., None] - table[:, None, None]).square().sum(1).argmin(-1)
        return ids, table.T[ids].movedim(-1, 1)

    def latents(self, x: Tensor) -> dict[str, Tensor]:
        """Those of the top level and, if that has codes, of the bottom level."""
        h = F.relu(self.conv("enc_b.blocks.0", x, stride=2))
        h = self.conv("enc_b.blocks.4", F.relu(self.conv("enc_b.blocks.2", h, stride=2)))
        bottom = F.relu(self.block("enc_b.blocks.5", h))
        h = self.conv("enc_t.blocks.2", F.relu(self.conv("enc_t.blocks.0", bottom, stride=2)))
        z_t = self.conv("quantize_conv_t", F.relu(self.block("enc_t.blocks.3", h)))
        if "quantize_t.embed" not in self.weights:
            return {"t": z_t}
        h = self.conv("dec_t.blocks.0", self.quantize("t", z_t)[1])
        h = self.up("dec_t.blocks.3", F.relu(self.block("dec_t.blocks.1", h)))
        return {"t": z_t, "b": self.conv("quantize_conv_b", torch.cat([h, bottom], dim=1))}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids of the top and of the bottom level, the loss, and pixels."""
        z_t, z_b = self.latents(x).values()
        (ids_t, q_t), (ids_b, q_b) = self.quantize("t", z_t), self.quantize("b", z_b)
        loss = 0.25 * (F.mse_loss(z_t, q_t) + F.mse_loss(z_b, q_b))
        h = torch.cat([self.up("upsample_t", q_t), q_b], dim=1)
        h = F.relu(self.block("dec.blocks.1", self.conv("dec.blocks.0", h)))
        return ids_t, ids_b, loss, self.up("dec.blocks.5", F.relu(self.up("dec.blocks.3", h)))


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
def test_ids_pixels_and_loss_follow_the_description(
    weights: Weights, images: Tensor, tmp_path: Path, prefix: str
) -> None:
    file = tmp_path / "vqvae_560.pt"
    torch.save({f"{prefix}{name}": item for name, item in weights.items()}, file)
    tokenizer = VQVAE2().convert(file)
    top, bottom, loss, pixels = Published(weights).forward(images.double())
    assert min(len(top.unique()), len(bottom.unique())) > 2
    ids = torch.cat([top.flatten(1), bottom.flatten(1)], dim=1)
    assert torch.equal(tokenizer.encode(images).flatten(1), ids)
    made = tokenizer(images)
    torch.testing.assert_close(made.samples, pixels.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.quantized.loss, loss.float())
    for level, own in (("t", tokenizer.codebook.top), ("b", tokenizer.codebook.bottom)):
        assert torch.equal(own.average_sums, weights[f"quantize_{level}.embed_avg"].T)
        assert torch.equal(own.average_counts, weights[f"quantize_{level}.cluster_size"])


@pytest.mark.parametrize(
    "key",
    [
        "enc_b.blocks.2.bias",
        "enc_t.blocks.3.conv.3.weight",
        "dec_t.blocks.3.weight",
        "quantize_conv_b.weight",
        "quantize_t.embed",
        "quantize_b.embed_avg",
        "upsample_t.bias",
        "dec.blocks.5.bias",
    ],
)
def test_a_wrong_key_is_named(
    weights: Weights, refusals: Callable[..., dict[str, str]], key: str
) -> None:
    said = refusals(VQVAE2(), weights, key)
    assert said["missing"].endswith(f"{key} is missing")
    assert said["renamed"].endswith(f"{key} is missing, {key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]
