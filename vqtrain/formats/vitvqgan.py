"""Checkpoints of enhancing-transformers: the ViT-VQGAN."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, count, drop, vote, vq
from vqtrain.formats.parts.loading import BETA, Names, load, squeezed, stretched
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.vit import block_names, heads_of, laid_out, side_of
from vqtrain.tokenizer.model import Tokenizer

VECTORS = "quantizer.embedding.weight"
EMBED, HEAD = "encoder.to_patch_embedding.0", "decoder.to_pixel.1"
POSITIONS = ("encoder.en_pos_embedding", "decoder.de_pos_embedding")
BLOCK: Names = (
    ("0.norm.", "norm1."),
    ("0.fn.to_qkv.", "attn.qkv."),
    ("0.fn.to_out.", "attn.proj."),
    ("1.norm.", "norm2."),
    ("1.fn.net.0.", "mlp.fc1."),
    ("1.fn.net.2.", "mlp.fc2."),
)


@final
class ViTVQGAN(Converter):
    """A ViT-VQGAN of enhancing-transformers, in a ``.ckpt`` file.

    Args:
        head_dim: Channels of each attention head, which the file does not say.

    References:
        Yu et al. 2021, arXiv:2110.04627; enhancing-transformers, enhancing/modules/stage1.
    """

    def __init__(self, *, head_dim: int = 64) -> None:
        self.head_dim = head_dim

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without its losses. Pixels in [0, 1], as there, are in [-1, 1] here."""
        weights = drop(read_weights(path), "loss.")
        with about(path):
            return self._convert(weights)

    def _convert(self, weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
        side = side_of(weights, POSITIONS, 1)
        patch_size = vote(weights, (rf"{EMBED}\.weight", 2), (rf"{HEAD}\.weight", 2))
        channels = vote(weights, (rf"{EMBED}\.weight", 1), (rf"{HEAD}\.weight", 1))
        shared = {
            "sample_size": [side * patch_size, side * patch_size],
            "patch_size": patch_size,
            "activation": "tanh",
            "qkv_bias": False,
            "pre_norm": False,
            "positions": "sincos_2d",
        }
        encoder = {**shared, **self._sizes(weights, "encoder"), "in_channels": channels}
        decoder = {**shared, **self._sizes(weights, "decoder"), "out_channels": channels}
        table = vq(codebook_weight=1.0, commitment_weight=BETA, l2_normalize=True)
        size = vote(weights, (VECTORS, 0), default=1)
        dim = vote(weights, (r"pre_quant\.\w+", 0), (r"post_quant\.weight", 1), (VECTORS, 1))
        own = laid_out(
            squeezed(stretched(weights, HEAD), EMBED),
            linear=("pre_quant.weight", "post_quant.weight"),
            positions=POSITIONS,
            side=side,
        )
        return load(
            own,
            module_names(weights),
            encoder={"kind": "vit", "arguments": encoder},
            codebook={"kind": "vq", "arguments": {**table.arguments, "size": size, "dim": dim}},
            decoder={"kind": "vit", "arguments": {**decoder, "head": "linear"}},
            channels=channels,
            projects=True,
        )

    def _sizes(self, weights: Mapping[str, Shaped[Tensor, "..."]], side: str) -> dict[str, object]:
        layers = rf"{side}\.transformer\.layers\.\d+"
        dim = vote(weights, (rf"{layers}\.\d\.norm\.\w+", 0))
        inner = vote(weights, (rf"{layers}\.0\.fn\.to_out\.weight", 1))
        return {
            "dim": dim,
            "depth": count(weights, f"{side}.transformer.layers."),
            "num_heads": heads_of(inner, self.head_dim),
            "head_dim": self.head_dim,
            "mlp_dim": vote(weights, (rf"{layers}\.1\.fn\.net\.0\.\w+", 0)),
        }


def module_names(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Names:
    """List what modules are called there and here."""
    names = [
        (VECTORS, "codebook.vectors"),
        ("pre_quant.", "project_in."),
        ("post_quant.", "project_out."),
        (f"{EMBED}.", "encoder.embed."),
        (f"{HEAD}.", "decoder.head.to_pixels."),
    ]
    for side, positions in zip(("encoder", "decoder"), POSITIONS, strict=True):
        layers = f"{side}.transformer.layers."
        names += block_names(layers, f"{side}.transformer.blocks.", count(weights, layers), BLOCK)
        names += [(positions, f"{side}.transformer.positions.weight")]
    return names
