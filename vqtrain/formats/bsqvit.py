"""Checkpoints of BSQ-ViT."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, count, drop, part, vote
from vqtrain.formats.parts.loading import Names, load
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.vit import block_names, heads_of, laid_out, side_of
from vqtrain.tokenizer.model import Tokenizer

CHANNELS = 3  # of which the file holds a multiple, the values of a patch
POSITIONS = ("encoder.positional_embedding", "decoder.positional_embedding")
MATRICES = (
    "encoder.conv1.weight",
    "quant_embed.weight",
    "post_quant_embed.weight",
    "decoder.ffn.0.weight",
    "decoder.conv_out.weight",
)
# Of its training there.
CODEBOOK = {
    "commitment_weight": 0.0,
    "entropy_weight": 0.1,
    "diversity": 1.0,
    "temperature": 1.0,
}


@final
class BSQViT(Converter):
    """A BSQ-ViT for images, in a ``.pt`` file.

    Args:
        ema: Averaged weights where the file has them, as in its evaluation, else the others.
        head_dim: Channels of each attention head, which the file does not say.

    References:
        Zhao et al. 2024, arXiv:2406.07548; bsq-vit, transcoder/models.
    """

    def __init__(self, *, ema: bool = True, head_dim: int = 64) -> None:
        self.sections = ("ema_state_dict",) * ema + ("state_dict",)
        self.head_dim = head_dim

    def convert(self, path: Path) -> Tokenizer:
        """Convert it. Its ids begin with the highest bit, so channels are reversed here."""
        weights = read_weights(path, self.sections)
        while any(name.startswith("module.") for name in weights):
            weights = part(weights, "module.")
        with about(path):
            return self._convert(weights)

    def _convert(self, weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
        side = side_of(weights, POSITIONS, 0)
        patch_size = side_of(
            weights, ["decoder.conv_out.bias", "decoder.conv_out.weight"], 0, each=CHANNELS
        )
        bits = vote(weights, (r"quant_embed\.\w+", 0), (r"post_quant_embed\.weight", 1))
        group_bits = vote(weights, (r"quantize\.group_basis", 0), default=1)
        dim = vote(weights, (r"(encoder|decoder)\.(ln_pre|ln_post)\.\w+", 0))
        shared = {
            "sample_size": [side * patch_size, side * patch_size],
            "patch_size": patch_size,
            "dim": dim,
            "num_heads": heads_of(dim, self.head_dim),
            "head_dim": self.head_dim,
            "mlp_dim": vote(weights, (r"encoder\.transformer\.resblocks\.\d+\.mlp\.c_fc\.\w+", 0)),
            "activation": "gelu",
            "qkv_bias": True,
            "pre_norm": True,
            "positions": "learned",
        }
        depths = {
            side: count(weights, f"{side}.transformer.resblocks.")
            for side in ("encoder", "decoder")
        }
        own = laid_out(
            reversed_channels(drop(weights, "quantize.")),
            linear=MATRICES,
            positions=POSITIONS,
            side=side,
        )
        return load(
            own,
            module_names(depths),
            encoder={
                "kind": "vit",
                "arguments": {**shared, "depth": depths["encoder"], "in_channels": CHANNELS},
            },
            codebook={
                "kind": "bsq",
                "arguments": {**CODEBOOK, "size": 2**bits, "group_bits": group_bits},
            },
            decoder={
                "kind": "vit",
                "arguments": {
                    **shared,
                    "depth": depths["decoder"],
                    "out_channels": CHANNELS,
                    "head": "tanh_mlp",
                },
            },
            channels=CHANNELS,
            projects=True,
        )


def reversed_channels(
    weights: Mapping[str, Shaped[Tensor, "..."]],
) -> dict[str, Shaped[Tensor, "..."]]:
    """Reverse the channels of the codes, so that the lowest bit of an id comes first."""
    own = dict(weights)
    for name, axis in (
        ("quant_embed.weight", 0),
        ("quant_embed.bias", 0),
        ("post_quant_embed.weight", 1),
    ):
        if name in own and own[name].ndim > axis:
            own[name] = own[name].flip(axis)
    return own


def module_names(depths: Mapping[str, int]) -> Names:
    """List what modules are called there and here."""
    names = [
        ("quant_embed.", "project_in."),
        ("post_quant_embed.", "project_out."),
        ("encoder.conv1.", "encoder.embed."),
        ("decoder.ffn.0.", "decoder.head.hidden."),
        ("decoder.conv_out.", "decoder.head.to_pixels."),
    ]
    for side, depth in depths.items():
        own = f"{side}.transformer."
        names += [
            (f"{side}.positional_embedding", f"{own}positions.weight"),
            (f"{side}.ln_pre.", f"{own}pre_norm."),
            (f"{side}.ln_post.", f"{own}norm."),
            *block_names(f"{side}.transformer.resblocks.", f"{own}blocks.", depth),
        ]
    return names
