"""Checkpoints of TiTok, of a single stage or of two."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import VECTORS, about, count, has, vote, vq
from vqtrain.formats.parts.convolutional import multiples
from vqtrain.formats.parts.loading import BETA, Names, load, squeezed, stretched
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.vit import block_names, heads_of, laid_out, side_of
from vqtrain.tokenizer.model import Tokenizer

POSITIONS = ("encoder.positional_embedding", "decoder.positional_embedding")
# Learned queries, and the positions of latents that are added to them.
QUERIES, ADDED = "latent_tokens", "latent_token_positional_embedding"
CODES = "pixel_quantize.embedding.weight"
EMBED, HEAD, SMOOTH = "encoder.patch_embed", "decoder.ffn.0", "decoder.conv_out"


@final
class TiTok(Converter):
    """A TiTok of 1d-tokenizer, trained in a single stage or in two, in a ``.bin`` file.

    Args:
        l2_normalize: Whether latents and codes have unit length, which the file does not say; None
            for as published: those of two stages have.
        head_dim: Channels of each attention head, which it does not say either.

    References:
        Yu et al. 2024, arXiv:2406.07550; 1d-tokenizer, modeling/titok.py and
        modeling/modules/blocks.py.
    """

    def __init__(self, *, l2_normalize: bool | None = None, head_dim: int = 64) -> None:
        self.l2_normalize, self.head_dim = l2_normalize, head_dim

    def convert(self, path: Path) -> Tokenizer:
        """Convert it. Pixels in [0, 1], as there, are in [-1, 1] here."""
        weights = read_weights(path)
        with about(path):
            return self._convert(weights)

    def _convert(self, weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
        own = merged(weights)
        side = side_of(own, POSITIONS, 0)
        # Two stages are of the older code, which also left a transpose out.
        has_stages = has(weights, "pixel_decoder.")
        pixels = maskgit_sizes(weights) if has_stages else {"head": "conv"}
        channels = vote(
            weights, (rf"{EMBED}\.weight", 1), (rf"({SMOOTH}|pixel_decoder\.conv_out)\.\w+", 0)
        )
        if has_stages:
            patch_size = 2 ** (count(weights, "pixel_decoder.up.") - 1)
        else:
            patch_size = side_of(weights, [f"{HEAD}.bias", f"{HEAD}.weight"], 0, each=channels)
            own = channels_first(own, channels, patch_size)
        shared = {
            "sample_size": [side * patch_size, side * patch_size],
            "num_tokens": vote(weights, (QUERIES, 0), (rf"\w+\.{ADDED}", 0)),
        }
        grid = {"patch_size": patch_size, "attention": "self", "positions": "learned"}
        encoder = {**shared, **grid, **self._sizes(weights, "encoder"), "in_channels": channels}
        decoder = {**shared, **self._sizes(weights, "decoder"), "out_channels": channels, **pixels}
        if not has_stages:
            decoder |= {**grid, "nested_dropout": "none"}
        l2_normalize = has_stages if self.l2_normalize is None else self.l2_normalize
        table = vq(codebook_weight=1.0, commitment_weight=BETA, l2_normalize=l2_normalize).arguments
        dim = vote(
            weights,
            (r"encoder\.conv_out\.\w+", 0),
            (r"decoder\.decoder_embed\.weight", 1),
            (VECTORS, 1),
        )
        size = {"size": vote(weights, (VECTORS, 0), default=1), "dim": dim}
        own = laid_out(
            squeezed(stretched(own, "pixel_decoder.conv_out" if has_stages else SMOOTH), EMBED),
            linear=("decoder.decoder_embed.weight",),
            positions=POSITIONS,
            side=side,
        )
        return load(
            own,
            module_names(weights),
            encoder={
                "kind": "latent_query",
                "arguments": {**encoder, "transpose": not has_stages},
            },
            codebook={"kind": "vq", "arguments": {**table, **size}},
            decoder={"kind": "titok" if has_stages else "latent_query", "arguments": decoder},
            channels=channels,
            projects=True,
            sums={QUERIES: f"encoder.{ADDED}"},
        )

    def _sizes(self, weights: Mapping[str, Shaped[Tensor, "..."]], side: str) -> dict[str, object]:
        dim = vote(weights, (rf"{side}\.(ln_pre|ln_post)\.\w+", 0))
        return {
            "dim": dim,
            "depth": count(weights, f"{side}.transformer."),
            "num_heads": heads_of(dim, self.head_dim),
        }


def maskgit_sizes(weights: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, object]:
    """Read the sizes of the second stage: the codes that are mixed, and MaskGIT's decoder."""
    up = "pixel_decoder.up."
    channels = vote(weights, (r"pixel_decoder\.norm_out\.\w+", 0))
    widths = [
        vote(weights, (rf"pixel_decoder\.up\.{level}\.block\.\d+\.(conv1|conv2|norm2)\.\w+", 0))
        for level in range(count(weights, up))
    ]
    return {
        "num_codes": vote(weights, (r"decoder\.ffn\.2\.\w+", 0), (CODES, 0)),
        "channels": channels,
        "multipliers": multiples(channels, widths),
        "num_blocks": count(weights, f"{up}0.block."),
        "latent_channels": vote(weights, (r"pixel_decoder\.conv_in\.weight", 1), (CODES, 1)),
    }


def merged(weights: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
    """Add the first position to the class token, whose it is; drop an axis of the mask token."""
    own = dict(weights)
    for side, name in zip(("encoder", "decoder"), POSITIONS, strict=True):
        token, table = own.get(f"{side}.class_embedding"), own.get(name)
        if table is None or table.ndim != 2:
            continue
        own[name] = table[1:]
        if token is not None and token.shape == table[:1].shape:
            own[f"{side}.class_embedding"] = token.float() + table[:1].float()
    mask = own.get("decoder.mask_token")
    if mask is not None and mask.ndim == 3:
        own["decoder.mask_token"] = mask.flatten(0, 1)
    return own


def channels_first(
    weights: Mapping[str, Shaped[Tensor, "..."]], channels: int, patch_size: int
) -> dict[str, Shaped[Tensor, "..."]]:
    """Order the values of a patch as here: channels come first, there they come last."""
    own = dict(weights)
    for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
        if name in own and own[name].shape[:1].numel() == channels * patch_size**2:
            own[name] = rearrange(own[name], "(place c) ... -> (c place) ...", c=channels)
    return own


def module_names(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Names:
    """List what modules are called there and here."""
    names = [
        (VECTORS, "codebook.vectors"),
        ("encoder.conv_out.", "project_in."),
        ("decoder.decoder_embed.", "project_out."),
        (QUERIES, "encoder.queries"),
        (f"decoder.{ADDED}", "decoder.queries.latent_positions"),
        ("decoder.mask_token", "decoder.queries.mask_token"),
        (f"{EMBED}.", "encoder.embed."),
        (CODES, "decoder.codes"),
    ]
    if has(weights, "pixel_decoder."):
        names += [("decoder.ffn.", "decoder.scores.")]
    else:
        names += [(f"{HEAD}.", "decoder.head.to_pixels."), (f"{SMOOTH}.", "decoder.head.smooth.")]
    for level in range(count(weights, "pixel_decoder.up.")):
        up = f"up.{level}."
        own = f"decoder.pixels.layers.{up}"
        names += [(f"pixel_decoder.{up}upsample_conv.", f"{own}resampling.conv.")]
    names += [("pixel_decoder.", "decoder.pixels.layers.")]
    for side, positions, own in zip(
        ("encoder", "decoder"), POSITIONS, ("encoder.", "decoder.queries."), strict=True
    ):
        blocks = f"{side}.transformer."
        names += [
            (positions, f"{own}positions.weight"),
            (f"{side}.class_embedding", f"{own}class_token"),
            (f"{side}.ln_pre.", f"{own}transformer.pre_norm."),
            (f"{side}.ln_post.", f"{own}transformer.norm."),
            *block_names(blocks, f"{own}transformer.blocks.", count(weights, blocks)),
        ]
    return names
