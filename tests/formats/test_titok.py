"""TiTok, beside a forward pass written from its description."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import CheckpointError
from vqtrain.formats.titok import TiTok

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Draw = Callable[[Shapes], Weights]

# The decoder may be larger than the encoder, as in BL-64.
DIMS, DEPTHS = {"encoder": 16, "decoder": 24}, {"encoder": 2, "decoder": 1}
HEAD_DIM, PATCH, TOKENS, CODES, CODE_DIM = 4, 8, 6, 24, 5


def published(draw: Draw) -> Weights:
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
    return draw(shapes)


class Model:
    """Its forward pass in double precision, with pixels in [0, 1]."""

    def __init__(self, weights: Weights, clip_block: Callable[..., Tensor]) -> None:
        self.w = {name: item.double() for name, item in weights.items()}
        self.clip_block = clip_block

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
        return F.linear(latents, w[f"{out}.weight"][..., 0, 0], w[f"{out}.bias"])

    def decode(self, z_q: Tensor) -> Tensor:
        """Pixels of quantized vectors [b, n, d]."""
        w, embed, out = self.w, "decoder.decoder_embed", "decoder.conv_out"
        latents = F.linear(z_q, w[f"{embed}.weight"], w[f"{embed}.bias"])
        grid = w["decoder.mask_token"].expand(len(z_q), 16, -1)
        grid = self.norm("decoder.ln_post", self.transformer("decoder", grid, latents)[:, 1:17])
        values = F.linear(grid, w["decoder.ffn.0.weight"][..., 0, 0], w["decoder.ffn.0.bias"])
        # Of a patch: row, column, channel; patches row by row.
        pixels = values.reshape(-1, 4, 4, PATCH, PATCH, 3).permute(0, 5, 1, 3, 2, 4)
        pixels = pixels.reshape(-1, 3, 4 * PATCH, 4 * PATCH)
        return F.conv2d(pixels, w[f"{out}.weight"], w[f"{out}.bias"], padding=1)


def save(weights: Weights, tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "titok.bin")
    return tmp_path / "titok.bin"


@pytest.mark.parametrize("l2_normalize", [False, True])
def test_ids_and_pixels_follow_the_description(
    draw: Draw,
    clip_block: Callable[..., Tensor],
    images: Tensor,
    tmp_path: Path,
    l2_normalize: bool,
) -> None:
    square, weights = images[..., :32], published(draw)
    model = Model(weights, clip_block)
    z = model.encode((square.double() + 1) / 2)
    table = 2 * z.flatten(0, 1)[torch.arange(CODES) % (2 * TOKENS)] + torch.randn(CODES, CODE_DIM)
    weights["quantize.embedding.weight"] = table.float()
    table = table.float().double()
    if l2_normalize:
        z, table = F.normalize(z, dim=-1), F.normalize(table, dim=-1)
    ids = torch.cdist(z, table).argmin(-1)
    converter = TiTok(l2_normalize=l2_normalize, head_dim=HEAD_DIM)
    tokenizer = converter.convert(save(weights, tmp_path))
    assert torch.equal(tokenizer.encode(square), ids)
    assert len(ids.unique()) > 4
    with torch.no_grad():
        reconstruction = tokenizer(square)
    expected = (2 * model.decode(table[ids]) - 1).float()
    torch.testing.assert_close(reconstruction.samples, expected, atol=1e-5, rtol=1e-5)
    loss = 1.25 * F.mse_loss(table[ids], z).float()
    torch.testing.assert_close(reconstruction.quantized.loss, loss)


@pytest.mark.parametrize(
    "key",
    [
        "latent_tokens",
        "encoder.latent_token_positional_embedding",
        "encoder.class_embedding",
        "encoder.positional_embedding",
        "encoder.patch_embed.weight",
        "encoder.conv_out.weight",
        "decoder.transformer.0.attn.in_proj_weight",
        "decoder.latent_token_positional_embedding",
        "decoder.mask_token",
        "decoder.ffn.0.bias",
        "decoder.conv_out.bias",
        "quantize.embedding.weight",
    ],
)
def test_a_wrong_key_is_named(
    draw: Draw, refusals: Callable[..., dict[str, str]], key: str
) -> None:
    said = refusals(TiTok(head_dim=HEAD_DIM), published(draw), key)
    assert said["missing"].endswith(f"{key} is missing")
    assert f": {key} is missing" in said["renamed"]
    assert said["renamed"].endswith(f"{key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]


def test_two_stages_are_refused(draw: Draw, tmp_path: Path) -> None:
    weights = published(draw) | {"pixel_decoder.conv_in.bias": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"it was trained in two stages \(pixel_decoder"):
        TiTok(head_dim=HEAD_DIM).convert(save(weights, tmp_path))
