"""TiTok of one stage and of two, beside a forward pass written from its description."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.formats.titok import TiTok

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Draw = Callable[[Shapes], Weights]

# The decoder may be larger than the encoder, as in BL-64.
DIMS, DEPTHS = {"encoder": 16, "decoder": 24}, {"encoder": 2, "decoder": 1}
PIXEL_CODES = 10
PIXEL_BLOCKS = {  # in the order of execution
    "mid.0": (64, 64),
    "up.3.block.0": (64, 64),
    "up.2.block.0": (64, 32),
    "up.1.block.0": (32, 32),
    "up.0.block.0": (32, 32),
}
HEAD_DIM, PATCH, TOKENS, CODES, CODE_DIM = 4, 8, 6, 24, 5


def second_stage() -> Shapes:
    """List what a second stage adds: four levels of 32, 32, 32 and 64 channels, one block each."""
    dim = DIMS["decoder"]
    shapes: Shapes = {
        "decoder.ffn.0.weight": (2 * dim, dim, 1, 1),
        "decoder.ffn.0.bias": (2 * dim,),
        "decoder.ffn.2.weight": (PIXEL_CODES, 2 * dim, 1, 1),
        "decoder.ffn.2.bias": (PIXEL_CODES,),
        "pixel_quantize.embedding.weight": (PIXEL_CODES, 6),
        "pixel_decoder.conv_in.weight": (64, 6, 3, 3),
        "pixel_decoder.conv_in.bias": (64,),
        "pixel_decoder.norm_out.weight": (32,),
        "pixel_decoder.norm_out.bias": (32,),
        "pixel_decoder.conv_out.weight": (3, 32, 3, 3),
        "pixel_decoder.conv_out.bias": (3,),
    }
    for name, (of, to) in PIXEL_BLOCKS.items():
        block, resampling = f"pixel_decoder.{name}", f"pixel_decoder.{name[:5]}upsample_conv"
        shapes |= {f"{block}.conv1.weight": (to, of, 3, 3), f"{block}.conv2.weight": (to, to, 3, 3)}
        for norm, channels in (("norm1", of), ("norm2", to)):
            shapes |= {f"{block}.{norm}.{part}": (channels,) for part in ("weight", "bias")}
        if of != to:
            shapes[f"{block}.nin_shortcut.weight"] = (to, to, 1, 1)
        if name[:5] in ("up.1.", "up.2.", "up.3."):
            shapes |= {f"{resampling}.weight": (to, to, 3, 3), f"{resampling}.bias": (to,)}
    return shapes


def published(draw: Draw, stages: int = 1) -> Weights:
    shapes: Shapes = {
        "latent_tokens": (TOKENS, DIMS["encoder"]),
        "encoder.patch_embed.weight": (DIMS["encoder"], 3, PATCH, PATCH),
        "encoder.patch_embed.bias": (DIMS["encoder"],),
        "encoder.conv_out.weight": (CODE_DIM, DIMS["encoder"], 1, 1),
        "encoder.conv_out.bias": (CODE_DIM,),
        "decoder.decoder_embed.weight": (DIMS["decoder"], CODE_DIM),
        "decoder.decoder_embed.bias": (DIMS["decoder"],),
        "decoder.mask_token": (1, 1, DIMS["decoder"]),
        "decoder.ffn.0.weight": (3 * PATCH**2, DIMS["decoder"], 1, 1),
        "decoder.ffn.0.bias": (3 * PATCH**2,),
        "decoder.conv_out.weight": (3, 3, 3, 3),
        "decoder.conv_out.bias": (3,),
        "quantize.embedding.weight": (CODES, CODE_DIM),
    }
    for side, dim in DIMS.items():
        shapes |= {
            f"{side}.class_embedding": (1, dim),
            f"{side}.positional_embedding": (17, dim),
            f"{side}.latent_token_positional_embedding": (TOKENS, dim),
        }
        norms = [f"{side}.ln_pre", f"{side}.ln_post"]
        for index in range(DEPTHS[side]):
            block = f"{side}.transformer.{index}"
            norms += [f"{block}.ln_1", f"{block}.ln_2"]
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * dim, dim),
                f"{block}.attn.in_proj_bias": (3 * dim,),
                f"{block}.attn.out_proj.weight": (dim, dim),
                f"{block}.attn.out_proj.bias": (dim,),
                f"{block}.mlp.c_fc.weight": (4 * dim, dim),
                f"{block}.mlp.c_fc.bias": (4 * dim,),
                f"{block}.mlp.c_proj.weight": (dim, 4 * dim),
                f"{block}.mlp.c_proj.bias": (dim,),
            }
        shapes |= {f"{name}.{part}": (dim,) for name in norms for part in ("weight", "bias")}
    if stages == 2:
        shapes = {name: shape for name, shape in shapes.items() if "decoder.conv_out" not in name}
        shapes |= second_stage()
    weights = draw(shapes)
    if stages == 2:
        weights["pixel_decoder.conv_out.weight"] /= 4  # the pixels are about in [0, 1]
    return weights


class Model:
    """Its forward pass in double precision, with pixels in [0, 1]."""

    def __init__(self, weights: Weights, clip_block: Callable[..., Tensor], cnn: Any) -> None:
        self.w = {name: item.double() for name, item in weights.items()}
        self.clip_block, self.cnn = clip_block, cnn(self.w)
        self.has_stages = "pixel_decoder.conv_in.weight" in weights

    def norm(self, name: str, x: Tensor) -> Tensor:
        """A layer norm."""
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def transformer(self, side: str, grid: Tensor, latents: Tensor) -> Tensor:
        """A class token, the grid and the latents as one sequence."""
        b, dim = len(grid), DIMS[side]
        grid = torch.cat([self.w[f"{side}.class_embedding"].expand(b, 1, dim), grid], dim=1)
        grid = grid + self.w[f"{side}.positional_embedding"]
        latents = latents + self.w[f"{side}.latent_token_positional_embedding"]
        x = self.norm(f"{side}.ln_pre", torch.cat([grid, latents], dim=1))
        for index in range(DEPTHS[side]):
            x = self.clip_block(self.w, f"{side}.transformer.{index}", x, dim // HEAD_DIM)
        return x

    def encode(self, pixels: Tensor) -> Tensor:
        """Vectors [b, n, d] that the quantizer is given."""
        w, embed, out = self.w, "encoder.patch_embed", "encoder.conv_out"
        grid = F.conv2d(pixels, w[f"{embed}.weight"], w[f"{embed}.bias"], stride=PATCH)
        grid = grid.flatten(2).transpose(1, 2)
        latents = w["latent_tokens"].expand(len(pixels), -1, -1)
        latents = self.norm("encoder.ln_post", self.transformer("encoder", grid, latents)[:, 17:])
        if self.has_stages:  # it takes the rows of values for those of channels
            latents = latents.reshape(-1, DIMS["encoder"], TOKENS).transpose(1, 2)
        return F.linear(latents, w[f"{out}.weight"][..., 0, 0], w[f"{out}.bias"])

    def decode(self, z_q: Tensor) -> Tensor:
        """Pixels of quantized vectors [b, n, d]."""
        w, embed, out = self.w, "decoder.decoder_embed", "decoder.conv_out"
        latents = F.linear(z_q, w[f"{embed}.weight"], w[f"{embed}.bias"])
        grid = w["decoder.mask_token"].expand(len(z_q), 16, -1)
        grid = self.norm("decoder.ln_post", self.transformer("decoder", grid, latents)[:, 1:17])
        if self.has_stages:
            return self.decode_second(grid.transpose(1, 2).unflatten(2, (4, 4)))
        values = F.linear(grid, w["decoder.ffn.0.weight"][..., 0, 0], w["decoder.ffn.0.bias"])
        # Of a patch: row, column, channel; patches row by row.
        pixels = values.reshape(-1, 4, 4, PATCH, PATCH, 3).permute(0, 5, 1, 3, 2, 4)
        pixels = pixels.reshape(-1, 3, 4 * PATCH, 4 * PATCH)
        return F.conv2d(pixels, w[f"{out}.weight"], w[f"{out}.bias"], padding=1)

    def decode_second(self, grid: Tensor) -> Tensor:
        """Pixels of what the queries have become [b, d, rows, columns]."""
        conv, norm = self.cnn.conv, self.cnn.norm
        shares = conv("decoder.ffn.2", conv("decoder.ffn.0", grid).tanh()).softmax(dim=1)
        codes = self.w["pixel_quantize.embedding.weight"]
        h = conv("pixel_decoder.conv_in", torch.einsum("nchw,cd->ndhw", shares, codes))
        for name in PIXEL_BLOCKS:
            block = f"pixel_decoder.{name}"
            x = conv(f"{block}.conv1", F.silu(norm(f"{block}.norm1", h)))
            x = conv(f"{block}.conv2", F.silu(norm(f"{block}.norm2", x)))
            is_joined = f"{block}.nin_shortcut.weight" in self.w
            h = x + (conv(f"{block}.nin_shortcut", x) if is_joined else h)
            resampling = f"pixel_decoder.{name[:5]}upsample_conv"
            if f"{resampling}.weight" in self.w:
                h = conv(resampling, h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        return conv("pixel_decoder.conv_out", F.silu(norm("pixel_decoder.norm_out", h)))


def save(weights: Weights, tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "titok.bin")
    return tmp_path / "titok.bin"


@pytest.mark.parametrize(("stages", "l2_normalize"), [(1, False), (1, True), (2, True)])
def test_ids_and_pixels_follow_the_description(
    draw: Draw,
    clip_block: Callable[..., Tensor],
    published_cnn: Callable[..., Any],
    images: Tensor,
    tmp_path: Path,
    stages: int,
    l2_normalize: bool,
) -> None:
    square, weights = images[..., :32], published(draw, stages)
    model = Model(weights, clip_block, published_cnn)
    z = model.encode((square.double() + 1) / 2)
    table = 2 * z.flatten(0, 1)[torch.arange(CODES) % (2 * TOKENS)] + torch.randn(CODES, CODE_DIM)
    weights["quantize.embedding.weight"] = table.float()
    table = table.float().double()
    if l2_normalize:
        z, table = F.normalize(z, dim=-1), F.normalize(table, dim=-1)
    ids = torch.cdist(z, table).argmin(-1)
    said = {} if stages == 2 else {"l2_normalize": l2_normalize}
    tokenizer = TiTok(**said, head_dim=HEAD_DIM).convert(save(weights, tmp_path))
    assert torch.equal(tokenizer.encode(square), ids)
    assert len(ids.unique()) > 4
    with torch.no_grad():
        reconstruction = tokenizer(square)
    expected = (2 * model.decode(table[ids]) - 1).float()
    torch.testing.assert_close(reconstruction.samples, expected, atol=1e-5, rtol=1e-5)
    loss = 1.25 * F.mse_loss(table[ids], z).float()
    torch.testing.assert_close(reconstruction.quantized.loss, loss)


@pytest.mark.parametrize(
    ("stages", "key"),
    [
        (1, "latent_tokens"),
        (1, "encoder.latent_token_positional_embedding"),
        (1, "encoder.class_embedding"),
        (1, "encoder.positional_embedding"),
        (1, "encoder.patch_embed.weight"),
        (1, "encoder.conv_out.weight"),
        (1, "decoder.transformer.0.attn.in_proj_weight"),
        (1, "decoder.latent_token_positional_embedding"),
        (1, "decoder.mask_token"),
        (1, "decoder.ffn.0.bias"),
        (1, "decoder.conv_out.bias"),
        (1, "quantize.embedding.weight"),
        (2, "encoder.patch_embed.bias"),
        (2, "decoder.ffn.2.bias"),
        (2, "pixel_quantize.embedding.weight"),
        (2, "pixel_decoder.up.2.upsample_conv.bias"),
        (2, "pixel_decoder.up.2.block.0.nin_shortcut.weight"),
        (2, "pixel_decoder.conv_out.bias"),
    ],
)
def test_a_wrong_key_is_named(
    draw: Draw, refusals: Callable[..., dict[str, str]], stages: int, key: str
) -> None:
    said = refusals(TiTok(head_dim=HEAD_DIM), published(draw, stages), key)
    assert f": {key} is missing" in said["missing"]
    assert f": {key} is missing" in said["renamed"]
    assert said["renamed"].endswith(f"{key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]
