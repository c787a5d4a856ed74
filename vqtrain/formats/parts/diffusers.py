"""What autoencoders of diffusers say of themselves, and what they call their weights."""

import json
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar, cast

import torch
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.build import bind
from vqtrain.errors import CheckpointError, ConfigError, require
from vqtrain.formats.parts.loading import pass_on
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.writing import CONFIG_FILE
from vqtrain.layers.norm import group_norm
from vqtrain.ranges import FINITE, above
from vqtrain.tokenizer.checks import differences
from vqtrain.tokenizer.model import Tokenizer

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
# Half precision alone, and before safetensors.
OTHER_WEIGHTS_FILES = (
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
# Of latents.
Scale = Annotated[float, above(0), FINITE]
Shift = Annotated[float, FINITE]
# Modules whose differences are listed; more only say that it is another network.
MAX_MODULES = 4

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


class Settings(ABC):
    """What the ``config.json`` of an autoencoder says."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """Blocks in a row, of each of which there are weights."""

    @abstractmethod
    def build(self) -> Tokenizer:
        """Build a tokenizer, with weights that are still to be loaded.

        Raises:
            ConfigError: If our networks cannot be that.
        """

    @abstractmethod
    def their_name(self, name: str) -> str | None:
        """Return their name of a weight of ours; None if they do not have it."""

    def theirs(self, own: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
        """Give weights of ours their names and shapes, and leave out what they do not have."""
        return to_theirs(own, self.their_name)

    def ours(
        self, weights: Mapping[str, Shaped[Tensor, "..."]]
    ) -> Mapping[str, Shaped[Tensor, "..."]]:
        """Join weights of theirs, of the right names and shapes, that are one here."""
        return weights


Known = TypeVar("Known", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class CNNSettings(Settings):
    """What all classes with networks that are ``cnn`` here say, with the defaults of those classes.

    ``sample_size`` and ``force_upcast`` change neither latents nor images.

    Raises:
        ConfigError: If ``cnn`` networks cannot be that.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: Sequence[str] = (DOWN[False],)
    up_block_types: Sequence[str] = (UP[False],)
    block_out_channels: Sequence[int] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    norm_num_groups: int = 32
    sample_size: int | Sequence[int] | None = None
    scaling_factor: Scale = 0.18215
    mid_block_add_attention: bool = True
    force_upcast: bool = False

    def __post_init__(self) -> None:
        """Refuse networks that ours cannot be."""
        check = self.check
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

    def check(self, name: str, holds: bool, right: str) -> None:
        """Refuse a value, and say which would be right."""
        got = getattr(self, name)
        require(holds, f"{name} is {got!r}, but in encoder=cnn decoder=cnn it can only be {right}")

    @property
    def num_blocks(self) -> int:
        """Blocks at each resolution."""
        return self.layers_per_block

    def tokenizer(
        self, kind: str, codebook: Mapping[str, object], *, moments: int, latents: int
    ) -> Tokenizer:
        """Build a tokenizer around a codebook.

        Args:
            kind: Of the codebook.
            codebook: Its arguments.
            moments: Channels that the encoder gives.
            latents: Channels that the decoder takes.
        """
        common: dict[str, object] = {
            "channels": self.block_out_channels[0],
            "multipliers": [w // self.block_out_channels[0] for w in self.block_out_channels],
            "num_blocks": self.layers_per_block,
            "dropout": 0.0,
        }
        encoder = {
            **common,
            "in_channels": self.in_channels,
            "latent_channels": moments,
            "attention_factors": [
                2**i for i, word in enumerate(self.down_block_types) if word == DOWN[True]
            ],
        }
        decoder = {
            **common,
            "out_channels": self.out_channels,
            "latent_channels": latents,
            "attention_factors": [
                2**i for i, word in enumerate(reversed(self.up_block_types)) if word == UP[True]
            ],
        }
        size, f = self.sample_size, 2 ** (len(self.block_out_channels) - 1)
        return Tokenizer(
            encoder={"kind": "cnn", "arguments": encoder},
            codebook={"kind": kind, "arguments": codebook},
            decoder={"kind": "cnn", "arguments": decoder},
            channels=self.in_channels,
            training={"image_size": size} if isinstance(size, int) and size % f == 0 else {},
        )


def groups_of(widths: Sequence[int]) -> list[int]:
    """List the numbers of groups that norms of those widths have."""
    with torch.device("meta"):  # a file may claim any width
        return sorted({group_norm(width).num_groups for width in widths})


def read_settings(path: Path, name: str, factory: type[Known]) -> Known:
    """Read the ``config.json`` of a directory.

    Args:
        path: The directory.
        name: Of the class that it must be of.
        factory: Takes what it says.

    Raises:
        CheckpointError: If it cannot be read, or is of another class.
        ConfigError: If it has settings that are not known, or that our networks cannot have.
    """
    file = path / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != name:
        raise CheckpointError(f"cannot read {file}: its _class_name is {found!r}, not {name!r}")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    return bind(factory, known, where=CONFIG_FILE)


def load(path: Path, name: str, factory: type[Known]) -> tuple[Known, Tokenizer]:
    """Read an autoencoder, strictly; projections that it does not have pass on what they get.

    Args:
        path: Of the directory.
        name: Of its class.
        factory: Takes what its ``config.json`` says.

    Raises:
        ConfigError: If our networks cannot be that.
        CheckpointError: If it cannot be read, or weights are missing, unknown or misshaped.
    """
    try:
        settings = read_settings(path, name, factory)
        weights = read_current_weights(path)
        blocks = settings.num_blocks
        require(
            blocks <= len(weights),
            f"layers_per_block is {blocks}, more than there are weights ({len(weights)})",
        )
        with torch.device("meta"):  # shapes come first: a wrong one could be of any size
            expected = settings.build().state_dict()
    except (ConfigError, RuntimeError) as error:  # torch's, where a size overflows
        raise ConfigError(f"cannot convert {path}: {error}") from error
    check_same(weights, settings.theirs(expected), path)
    joined, tokenizer = settings.ours(weights), settings.build()
    for projection in (tokenizer.project_in, tokenizer.project_out):
        pass_on(projection)
    own = tokenizer.state_dict()
    for mine, tensor in own.items():
        theirs = settings.their_name(mine)
        if theirs is not None:
            own[mine] = joined[theirs].reshape(tensor.shape).float()
    tokenizer.load_weights(own)
    return settings, tokenizer.eval()


@torch.no_grad()
def rescale(tokenizer: Tokenizer, shift: Sequence[float], scale: Sequence[float]) -> None:
    """Let latents be (z - shift) * scale, which models of them take, and the decoder undo it.

    The projections do both. ``training_summary`` says the numbers: one if all channels agree.

    Args:
        tokenizer: Whose codebook gives ``dim`` channels; if it takes more, they are as many
            log-variances after the means.
        shift: Of each channel.
        scale: Of each channel, above 0.
    """
    for name, values in (("scale", scale), ("shift", shift)):
        require(
            len(values) == tokenizer.codebook.dim,
            f"{name}s of {len(values)} channels, but there are {tokenizer.codebook.dim}",
        )
    project_in, project_out = tokenizer.project_in, tokenizer.project_out
    by, less = (torch.tensor(values, dtype=torch.float64) for values in (scale, shift))
    factors, offsets = by, -less * by
    if tokenizer.codebook.in_channels > tokenizer.codebook.dim:
        factors = torch.cat([by, torch.ones_like(by)])
        offsets = torch.cat([offsets, 2 * by.log()])
    for layer, weight, bias in (
        (
            project_in,
            project_in.weight.double() * factors[:, None, None, None],
            cast(Tensor, project_in.bias).double() * factors + offsets,
        ),
        (
            project_out,
            project_out.weight.double() / by[:, None, None],
            cast(Tensor, project_out.bias).double() + project_out.weight.double()[..., 0, 0] @ less,
        ),
    ):
        layer.weight.copy_(weight)
        cast(Tensor, layer.bias).copy_(bias)
    said = {"scale": list(scale), "shift": list(shift)}
    tokenizer.training_summary["latents"] = {
        name: values[0] if len(set(values)) == 1 else values for name, values in said.items()
    }


def read_current_weights(path: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Read the weights in a directory, with attention named as it is now.

    Raises:
        CheckpointError: If there are none, or they cannot be read.
    """
    names = (WEIGHTS_FILE, *OTHER_WEIGHTS_FILES)
    files = [path / name for name in names if (path / name).is_file()]
    if not files:
        raise CheckpointError(f"no weights in {path}: looked for {' and '.join(names)}")
    weights = with_current_names(read_weights(files[0]))
    # Of batch normalization in training.
    return {k: item for k, item in weights.items() if not k.endswith(".num_batches_tracked")}


def check_same(
    weights: Mapping[str, Shaped[Tensor, "..."]],
    wanted: Mapping[str, Shaped[Tensor, "..."]],
    path: Path,
) -> None:
    """Refuse weights of other names or shapes than wanted, and list them by module."""
    modules = defaultdict(list)
    for difference in differences(weights, wanted):
        name, _, wrong = difference.partition(" ")
        module, _, parameter = name.rpartition(".")
        modules[module].append(f"{parameter} {wrong}")
    if modules:
        listed = [f"{module}: {', '.join(wrong)}" for module, wrong in modules.items()]
        more = f"; and in {len(listed) - MAX_MODULES} more" if len(listed) > MAX_MODULES else ""
        raise CheckpointError(
            f"the weights in {path} are not those of its {CONFIG_FILE}: "
            f"{'; '.join(listed[:MAX_MODULES])}{more}"
        )


def to_theirs(
    weights: Mapping[str, Shaped[Tensor, "..."]], name_of: Callable[[str], str | None]
) -> dict[str, Shaped[Tensor, "..."]]:
    """Give weights of ours their names and shapes, and leave out what they do not have.

    Args:
        weights: All of ours.
        name_of: As ``Settings.their_name``.
    """
    named = {name_of(name): item for name, item in weights.items()}
    return {
        name: rearrange(item, "o i 1 1 -> o i") if MATRIX.search(name) and item.ndim == 4 else item
        for name, item in named.items()
        if name is not None
    }


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
