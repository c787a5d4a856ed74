"""What a ``VQModel`` of diffusers says of itself, and what it calls its weights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import require
from vqtrain.formats.parts.writing import check_nearest, cnn_arguments
from vqtrain.layers.norm import group_norm
from vqtrain.tokenizer.model import Tokenizer

# Block types by whether attention follows each of their blocks.
DOWN = {False: "DownEncoderBlock2D", True: "AttnDownEncoderBlock2D"}
UP = {False: "UpDecoderBlock2D", True: "AttnUpDecoderBlock2D"}

# Parts of our names and of theirs. Levels of the decoder are counted the other way as well.
RENAMED = (
    (r"^project_in\.", "quant_conv."),
    (r"^project_out\.", "post_quant_conv."),
    (r"^codebook\.vectors$", "quantize.embedding.weight"),
    (r"\.down\.", ".down_blocks."),
    (r"\.up\.", ".up_blocks."),
    (r"\.block\.", ".resnets."),
    (r"\.attn\.", ".attentions."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.norm\.", ".group_norm."),
    (r"\.([qkv])\.", r".to_\1."),
    (r"\.proj_out\.", ".to_out.0."),
)
# What attention was called in older files.
OLD_ATTENTION = (
    (".query.", ".to_q."),
    (".key.", ".to_k."),
    (".value.", ".to_v."),
    (".proj_attn.", ".to_out.0."),
)
# Matrices there, convolutions of 1x1 here.
MATRIX = re.compile(r"\.(to_[qkv]|to_out\.0)\.weight$")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the ``config.json`` of a ``VQModel`` says; the defaults are its class's.

    ``sample_size``, ``scaling_factor``, ``lookup_from_codebook`` and ``force_upcast`` change
    neither ids nor images.

    Raises:
        ConfigError: If ``cnn`` networks around a table cannot be that.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: Sequence[str] = (DOWN[False],)
    up_block_types: Sequence[str] = (UP[False],)
    block_out_channels: Sequence[int] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    sample_size: int | None = None
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    scaling_factor: float = 0.18215
    norm_type: str = "group"
    mid_block_add_attention: bool = True
    lookup_from_codebook: bool = False
    force_upcast: bool = False

    def __post_init__(self) -> None:
        """Refuse networks that ours cannot be."""
        check = self._check
        check("norm_type", self.norm_type == "group", "group")
        check("act_fn", self.act_fn in ("silu", "swish"), "silu or swish")
        check("mid_block_add_attention", self.mid_block_add_attention, "true")
        check(
            "out_channels",
            self.out_channels == self.in_channels,
            f"{self.in_channels}, as in_channels",
        )
        widths = self.block_out_channels
        is_multiple = bool(widths) and all(
            width > 0 and width % max(1, widths[0]) == 0 for width in widths
        )
        check("block_out_channels", is_multiple, "multiples of the first of them")
        groups = groups_of(widths)
        check("norm_num_groups", groups == [self.norm_num_groups], " and ".join(map(str, groups)))
        for name, types in (("down_block_types", DOWN), ("up_block_types", UP)):
            blocks = getattr(self, name)
            fits = len(blocks) == len(widths) and set(blocks) <= set(types.values())
            check(name, fits, f"{len(widths)} of {' and '.join(types.values())}")

    def _check(self, name: str, holds: bool, right: str) -> None:
        got = getattr(self, name)
        require(holds, f"{name} is {got!r}, but in encoder=cnn decoder=cnn it can only be {right}")

    def build(self) -> Tokenizer:
        """Build a tokenizer, with weights that are still to be loaded."""
        common: dict[str, object] = {
            "channels": self.block_out_channels[0],
            "multipliers": [w // self.block_out_channels[0] for w in self.block_out_channels],
            "num_blocks": self.layers_per_block,
            "latent_channels": self.latent_channels,
            "dropout": 0.0,
        }
        down = [2**i for i, word in enumerate(self.down_block_types) if word == DOWN[True]]
        up = [2**i for i, word in enumerate(reversed(self.up_block_types)) if word == UP[True]]
        encoder = {**common, "in_channels": self.in_channels, "attention_factors": down}
        decoder = {**common, "out_channels": self.out_channels, "attention_factors": up}
        # VQModel multiplies the term that moves codes, not the one that moves latents, by 0.25.
        codebook = {
            **PLAIN,
            "size": self.num_vq_embeddings,
            "dim": self.latent_channels if self.vq_embed_dim is None else self.vq_embed_dim,
            "codebook_weight": 0.25,
            "commitment_weight": 1.0,
            "gradient": "straight_through",
        }
        size, f = self.sample_size, 2 ** (len(self.block_out_channels) - 1)
        return Tokenizer(
            encoder={"kind": "cnn", "arguments": encoder},
            codebook={"kind": "vq", "arguments": codebook},
            decoder={"kind": "cnn", "arguments": decoder},
            channels=self.in_channels,
            training={"image_size": size} if size is not None and size % f == 0 else {},
        )


def settings_of(tokenizer: Tokenizer) -> Settings:
    """Say what a tokenizer is as a ``VQModel``.

    Raises:
        ConfigError: If it cannot be one.
    """
    owner = "diffusers' VQModel"
    encoder, decoder = cnn_arguments(
        tokenizer, owner, same=("channels", "multipliers", "num_blocks", "latent_channels")
    )
    check_nearest(tokenizer.codebook, owner, tokenizer.specification["codebook"])
    multipliers = encoder["multipliers"]
    require(
        multipliers[0] == 1,
        "the first level of diffusers' VQModel is as wide as its first layer: multipliers must "
        f"begin with 1, got {multipliers}",
    )
    widths = [encoder["channels"] * multiplier for multiplier in multipliers]
    groups = groups_of(widths)
    require(
        len(groups) == 1,
        f"diffusers' VQModel has one number of groups for all norms, but levels of {widths} "
        f"channels have {groups}: 32 must divide all, or the groups be equal",
    )
    levels = range(len(multipliers))
    size = tokenizer.training_summary.get("image_size")
    return Settings(
        in_channels=encoder["in_channels"],
        out_channels=decoder["out_channels"],
        down_block_types=[DOWN[2**i in encoder["attention_factors"]] for i in levels],
        up_block_types=[UP[2**i in decoder["attention_factors"]] for i in reversed(levels)],
        block_out_channels=widths,
        layers_per_block=encoder["num_blocks"],
        latent_channels=encoder["latent_channels"],
        sample_size=size if isinstance(size, int) else None,
        num_vq_embeddings=tokenizer.vocab_size,
        norm_num_groups=groups[0],
        vq_embed_dim=tokenizer.codebook.dim,
        lookup_from_codebook=True,  # so that decode(ids, force_not_quantize=True, ...) takes ids
    )


def groups_of(widths: Sequence[int]) -> list[int]:
    """List the numbers of groups that norms of those widths have."""
    with torch.device("meta"):  # a file may claim any width
        return sorted({group_norm(width).num_groups for width in widths})


def to_theirs(
    weights: Mapping[str, Shaped[Tensor, "..."]], levels: int
) -> dict[str, Shaped[Tensor, "..."]]:
    """Give weights of ours their names and shapes, and leave out what a ``VQModel`` has not."""
    theirs = {their_name(name, levels): item for name, item in weights.items() if is_shared(name)}
    for name, item in theirs.items():
        if MATRIX.search(name):
            theirs[name] = rearrange(item, "o i 1 1 -> o i")
    return theirs


def with_current_names(
    weights: Mapping[str, Shaped[Tensor, "..."]],
) -> dict[str, Shaped[Tensor, "..."]]:
    """Name attention as newer files do."""
    current = dict(weights)
    for name in weights:
        for old, new in OLD_ATTENTION:
            if old in name:
                current.setdefault(name.replace(old, new), current.pop(name))
    return current


def is_shared(name: str) -> bool:
    """Say whether a weight of ours is one of a ``VQModel`` too; counts of a codebook are not."""
    return name == "codebook.vectors" or not name.startswith("codebook.")


def their_name(name: str, levels: int) -> str:
    """Return their name of a weight of ours.

    Example:
        >>> their_name("decoder.up.0.attn.1.q.bias", levels=4)
        'decoder.up_blocks.3.attentions.1.to_q.bias'
    """
    name = re.sub(r"\.up\.(\d+)\.", lambda found: f".up.{levels - 1 - int(found[1])}.", name)
    for ours, theirs in RENAMED:
        name = re.sub(ours, theirs, name)
    return name
