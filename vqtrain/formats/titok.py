"""Checkpoints of TiTok, whose tokens are a sequence."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import VECTORS, Names, about, count, has, vote, vq
from vqtrain.formats.parts.loading import BETA, load, squeezed, stretched
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.vit import block_names, heads_of, laid_out, side_of
from vqtrain.tokenizer.model import Tokenizer

POSITIONS = ("encoder.positional_embedding", "decoder.positional_embedding")
# Learned queries, and the positions of latents that are added to them.
QUERIES, ADDED = "latent_tokens", "latent_token_positional_embedding"
EMBED, HEAD, SMOOTH = "encoder.patch_embed", "decoder.ffn.0", "decoder.conv_out"


@final
class TiTok(Converter):
    """A TiTok of 1d-tokenizer that was trained in a single stage, in a ``.bin`` file.

    Args:
        l2_normalize: Whether latents and codes have unit length, which the file does not say.
        head_dim: Channels of each attention head, which it does not say either.

    References:
        Yu et al. 2024, arXiv:2406.07550; 1d-tokenizer, modeling/titok.py and
        modeling/modules/blocks.py.
    """

    def __init__(self, *, l2_normalize: bool = False, head_dim: int = 64) -> None:
        self.l2_normalize, self.head_dim = l2_normalize, head_dim

    def convert(self, path: Path) -> Tokenizer:
        """Convert it. Pixels in [0, 1], as there, are in [-1, 1] here."""
        weights = read_weights(path)
        with about(path):
            if has(weights, "pixel_decoder."):
                raise CheckpointError(
                    "it was trained in two stages (pixel_decoder.*), as TiTok-S-128, B-64 and L-32 "
                    "were; only models of a single stage are converted, such as BL-64 and BL-128"
                )
            return self._convert(weights)

    def _convert(self, weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
        own = merged(weights)
        side = side_of(own, POSITIONS, 0)
        channels = vote(weights, (rf"{EMBED}\.weight", 1), (rf"{SMOOTH}\.\w+", 0))
        patch_size = side_of(weights, [f"{HEAD}.bias", f"{HEAD}.weight"], 0, each=channels)
        shared = {
            "sample_size": [side * patch_size, side * patch_size],
            "patch_size": patch_size,
            "num_tokens": vote(weights, (QUERIES, 0), (rf"\w+\.{ADDED}", 0)),
            "attention": "self",
            "positions": "learned",
        }
        encoder = {**shared, **self._sizes(weights, "encoder"), "in_channels": channels}
        decoder = {
            **shared,
            **self._sizes(weights, "decoder"),
            "out_channels": channels,
            "head": "conv",
            "nested_dropout": "none",
        }
        table = vq(
            codebook_weight=1.0, commitment_weight=BETA, l2_normalize=self.l2_normalize
        ).arguments
        dim = vote(
            weights,
            (r"encoder\.conv_out\.\w+", 0),
            (r"decoder\.decoder_embed\.weight", 1),
            (VECTORS, 1),
        )
        size = {"size": vote(weights, (VECTORS, 0), default=1), "dim": dim}
        own = laid_out(
            squeezed(stretched(own, SMOOTH), EMBED),
            linear=("decoder.decoder_embed.weight",),
            positions=POSITIONS,
            side=side,
        )
        return load(
            channels_first(own, channels, patch_size),
            module_names(weights),
            encoder={"kind": "latent_query", "arguments": encoder},
            codebook={"kind": "vq", "arguments": {**table, **size}},
            decoder={"kind": "latent_query", "arguments": decoder},
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
        (f"decoder.{ADDED}", "decoder.latent_positions"),
        (f"{EMBED}.", "encoder.embed."),
        (f"{HEAD}.", "decoder.head.to_pixels."),
        (f"{SMOOTH}.", "decoder.head.smooth."),
    ]
    for side, positions in zip(("encoder", "decoder"), POSITIONS, strict=True):
        blocks = f"{side}.transformer."
        names += [
            (positions, f"{side}.positions.weight"),
            (f"{side}.class_embedding", f"{side}.class_token"),
            (f"{side}.ln_pre.", f"{blocks}pre_norm."),
            (f"{side}.ln_post.", f"{blocks}norm."),
            *block_names(blocks, f"{blocks}blocks.", count(weights, blocks)),
        ]
    return names
