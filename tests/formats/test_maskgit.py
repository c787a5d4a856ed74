"""MaskGIT's and MaskBit's tokenizers, beside a forward pass written from their description."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import CheckpointError
from vqtrain.formats.maskgit import MaskGIT

Weights = dict[str, Tensor]
Draw = Callable[[dict[str, tuple[int, ...]]], Weights]

BITS, CODES = 6, 24
# Blocks, the convolution that halves if there is one, where the first level to be decoded is.
LAYOUTS = {
    "1d-tokenizer": ("block.", "", 2),
    "maskbit-legacy": ("res_blocks.", "down_conv", 2),
    "maskbit": ("res_blocks.", "down_conv", 0),
}


def shapes(layout: str, *, has_signs: bool) -> dict[str, tuple[int, ...]]:
    """List names and shapes of three levels of 32, 32 and 64 channels, with one block each."""
    blocks, down_conv, first = LAYOUTS[layout]
    mid = blocks if blocks == "res_blocks." else ""
    found: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})

    def block(name: str, of: int, to: int) -> None:
        norm(f"{name}.norm1", of)
        norm(f"{name}.norm2", to)
        found.update(
            {f"{name}.conv1.weight": (to, of, 3, 3), f"{name}.conv2.weight": (to, to, 3, 3)}
        )
        if of != to:
            found[f"{name}.nin_shortcut.weight"] = (to, to, 1, 1)

    def conv(name: str, to: int, of: int, kernel: int) -> None:
        found.update({f"{name}.weight": (to, of, kernel, kernel), f"{name}.bias": (to,)})

    found["encoder.conv_in.weight"] = (32, 3, 3, 3)
    for level, (of, to) in enumerate([(32, 32), (32, 32), (32, 64)]):
        block(f"encoder.down.{level}.{blocks}0", of, to)
        if down_conv and level < 2:
            conv(f"encoder.down.{level}.{down_conv}", to, to, 3)
    block(f"encoder.mid.{mid}0", 64, 64)
    norm("encoder.norm_out", 64)
    conv("encoder.conv_out", BITS, 64, 1)
    conv("decoder.conv_in", 64, BITS, 3)
    block(f"decoder.mid.{mid}0", 64, 64)
    for index, (of, to) in enumerate([(64, 64), (64, 32), (32, 32)]):
        level = abs(first - index)
        block(f"decoder.up.{level}.{blocks}0", of, to)
        if index < 2:
            conv(f"decoder.up.{level}.upsample_conv", to, to, 3)
    norm("decoder.norm_out", 32)
    conv("decoder.conv_out", 3, 32, 3)
    if has_signs:
        return found | {"quantize.codebook": (2**BITS, BITS), "quantize.bits_to_indices": (BITS,)}
    return found | {"quantize.embedding.weight": (CODES, BITS)}


class Published:
    """Its forward pass in double precision, with pixels in [0, 1]."""

    def __init__(self, weights: Weights, layout: str) -> None:
        self.weights = {name: item.double() for name, item in weights.items()}
        self.blocks, self.down_conv, self.first = LAYOUTS[layout]
        self.mid = self.blocks if self.blocks == "res_blocks." else ""

    def conv(self, name: str, x: Tensor, **options: int) -> Tensor:
        """A convolution that keeps the size."""
        weight = self.weights[f"{name}.weight"]
        options = {"padding": weight.shape[-1] // 2, **options}
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), **options)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """The norm of 32 groups, and swish."""
        w = self.weights
        return F.silu(F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6))

    def block(self, name: str, x: Tensor) -> Tensor:
        """A residual block."""
        h = self.conv(f"{name}.conv1", self.norm(f"{name}.norm1", x))
        h = self.conv(f"{name}.conv2", self.norm(f"{name}.norm2", h))
        if f"{name}.nin_shortcut.weight" in self.weights:
            return h + self.conv(f"{name}.nin_shortcut", h)  # of the output
        return h + x

    def encode(self, pixels: Tensor) -> Tensor:
        """What the quantizer is given."""
        h = self.conv("encoder.conv_in", pixels)
        for level in range(3):
            h = self.block(f"encoder.down.{level}.{self.blocks}0", h)
            if level < 2 and self.down_conv:
                name = f"encoder.down.{level}.{self.down_conv}"
                h = self.conv(name, F.pad(h, (0, 1, 0, 1)), stride=2, padding=0)
            elif level < 2:
                h = F.avg_pool2d(h, 2)
        h = self.block(f"encoder.mid.{self.mid}0", h)
        return self.conv("encoder.conv_out", self.norm("encoder.norm_out", h))

    def decode(self, z_q: Tensor) -> Tensor:
        """Pixels of quantized latents."""
        h = self.block(f"decoder.mid.{self.mid}0", self.conv("decoder.conv_in", z_q))
        for index in range(3):
            level = abs(self.first - index)
            h = self.block(f"decoder.up.{level}.{self.blocks}0", h)
            if index < 2:
                doubled = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                h = self.conv(f"decoder.up.{level}.upsample_conv", doubled)
        return self.conv("decoder.conv_out", self.norm("decoder.norm_out", h))


def save(weights: Weights, tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "tokenizer.bin")
    return tmp_path / "tokenizer.bin"


@pytest.mark.parametrize("has_signs", [False, True], ids=["vq", "lfq"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_and_pixels_follow_the_description(
    draw: Draw, images: Tensor, tmp_path: Path, layout: str, has_signs: bool
) -> None:
    weights = draw(shapes(layout, has_signs=has_signs))
    model = Published(weights, layout)
    z = model.encode((images.double() + 1) / 2)
    if has_signs:
        bits = (z > 0).long()
        ids = sum(bits[:, channel] << channel for channel in range(BITS))
        z_q = bits.double() * 2 - 1
    else:
        table = z.movedim(1, -1).flatten(0, 2)[:CODES]
        weights["quantize.embedding.weight"] = table.float()
        ids = (z[:, None] - table[None, :, :, None, None]).square().sum(2).argmin(1)
        z_q = table[ids].movedim(-1, 1)
    tokenizer = MaskGIT().convert(save(weights, tmp_path))
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 4
    with torch.no_grad():
        reconstruction = tokenizer(images)
    expected = (2 * model.decode(z_q) - 1).float()
    torch.testing.assert_close(reconstruction.samples, expected, atol=1e-5, rtol=1e-5)
    commitment = 0.25 * F.mse_loss(z, z_q).float()
    loss = commitment if has_signs else 5 * commitment
    torch.testing.assert_close(reconstruction.quantized.loss, loss)


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ("1d-tokenizer", "encoder.down.2.block.0.nin_shortcut.weight"),
        ("maskbit-legacy", "decoder.up.2.upsample_conv.bias"),
        ("maskbit", "decoder.up.0.upsample_conv.weight"),
        ("maskbit", "encoder.down.1.down_conv.weight"),
        ("maskbit", "encoder.mid.res_blocks.0.norm1.weight"),
        ("maskbit", "decoder.conv_out.bias"),
        ("1d-tokenizer", "quantize.embedding.weight"),
    ],
)
def test_a_wrong_key_is_named(
    draw: Draw, refusals: Callable[..., dict[str, str]], layout: str, key: str
) -> None:
    said = refusals(MaskGIT(), draw(shapes(layout, has_signs=False)), key)
    assert said["missing"].endswith(f"{key} is missing")
    assert said["renamed"].endswith(f"{key} is missing, {key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]


def test_another_network_is_refused(draw: Draw, tmp_path: Path) -> None:
    weights = draw({"encoder.conv_in.weight": (32, 3, 3, 3)})
    with pytest.raises(CheckpointError, match=r"it has no residual blocks in encoder\.down\.0"):
        MaskGIT().convert(save(weights, tmp_path))
