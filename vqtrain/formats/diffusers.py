"""diffusers' ``VQModel``, both ways: ``cnn`` networks under other names, around a plain table."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, final

import torch
from einops import rearrange
from jaxtyping import Float, Int64, Shaped
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vqtrain.build import bind
from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import CheckpointError, ConfigError, require
from vqtrain.formats.agreement import Agreement, Tolerance, compare
from vqtrain.formats.pickles import read_weights
from vqtrain.layers.norm import group_norm
from vqtrain.tokenizer.checks import differences
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.storage import write_whole

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
# Before safetensors.
OLD_WEIGHTS_FILE = "diffusion_pytorch_model.bin"
CLASS = "VQModel"

# Block types by whether attention follows each of their blocks.
DOWN = {False: "DownEncoderBlock2D", True: "AttnDownEncoderBlock2D"}
UP = {False: "UpDecoderBlock2D", True: "AttnUpDecoderBlock2D"}

# Codebooks that are one table of codes, of which the nearest is taken.
TABLES = ("vq", "ema", "simvq")

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
# Modules whose differences are listed; more only say that it is another network.
MAX_MODULES = 4


@final
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


def convert(path: Path) -> Tokenizer:
    """Read a ``VQModel``, with the loss that it is trained with there.

    Args:
        path: The directory that ``VQModel.save_pretrained`` wrote.

    Raises:
        CheckpointError: If it cannot be read, or its weights are not those of its settings.
        ConfigError: If ``cnn`` networks around a table cannot be that.
    """
    try:
        settings = read_settings(path / CONFIG_FILE)
        weights = read_current_weights(path)
        blocks, levels = settings.layers_per_block, len(settings.block_out_channels)
        require(
            blocks <= len(weights),
            f"layers_per_block is {blocks}, more than there are weights ({len(weights)})",
        )
        with torch.device("meta"):  # shapes come first: a wrong one could be of any size
            expected = settings.build().state_dict()
    except (ConfigError, RuntimeError) as error:  # torch's, where a size overflows
        raise ConfigError(f"cannot convert {path}: {error}") from error
    check_same(weights, to_theirs(expected, levels), path)
    tokenizer = settings.build()
    own = tokenizer.state_dict()
    for name, tensor in own.items():
        if is_shared(name):
            own[name] = weights[their_name(name, levels)].reshape(tensor.shape).float()
    tokenizer.load_weights(own)
    return tokenizer.eval()


def export(
    tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c _ _"]]
) -> Agreement:
    """Write a directory for ``VQModel.from_pretrained``, load it with that, and compare.

    A table of normalized codes goes there as well: the code nearest to a latent is then the one
    nearest to its direction, since all codes are equally far from zero.

    Args:
        tokenizer: In eval mode, on the CPU.
        out: A folder that exists.
        images: Batches in [-1, 1] to compare on.

    Raises:
        ConfigError: If ``VQModel`` cannot be that, or diffusers is missing.
        VqtrainError: If what was written does not agree with the tokenizer.
    """
    settings = settings_of(tokenizer)
    if find_spec("diffusers") is None:
        raise ConfigError(
            "format=diffusers is checked with diffusers' own class: pip install diffusers"
        )
    known = {name: value for name, value in asdict(settings).items() if value is not None}
    text = json.dumps({"_class_name": CLASS, **known}, indent=2)
    weights = {**tokenizer.state_dict(), "codebook.vectors": tokenizer.codebook_vectors}
    theirs = to_theirs(weights, len(settings.block_out_channels))
    content = to_safetensors(
        {name: tensor.float().contiguous() for name, tensor in theirs.items()}, {"format": "pt"}
    )
    write_whole(out / CONFIG_FILE, lambda file: file.write(f"{text}\n".encode()))
    write_whole(out / WEIGHTS_FILE, lambda file: file.write(content))
    return check(tokenizer, out, images)


def check(tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c _ _"]]) -> Agreement:
    """Load what was written with diffusers' own class, and compare it.

    Raises:
        VqtrainError: If it does not agree with the tokenizer.
    """
    from diffusers import VQModel  # seconds, for this alone

    # Otherwise it advises everyone who lacks accelerate to install it.
    options = {"local_files_only": True, "low_cpu_mem_usage": False}
    model = VQModel.from_pretrained(str(out), **options).eval()  # type: ignore[no-untyped-call]

    def encode(images: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b h_z w_z"]:
        latents = model.encode(images).latents
        token_ids: Tensor = model.quantize(latents)[2][2]
        return token_ids.reshape(len(latents), *latents.shape[2:])

    def decode(token_ids: Int64[Tensor, "b h_z w_z"]) -> Float[Tensor, "b c h w"]:
        shape = (*token_ids.shape, tokenizer.codebook.dim)
        return model.decode(token_ids, force_not_quantize=True, shape=shape).sample.clamp(-1, 1)

    return compare(tokenizer, images, encode=encode, decode=decode, tolerance=Tolerance())


def settings_of(tokenizer: Tokenizer) -> Settings:
    """Say what a tokenizer is as a ``VQModel``.

    Raises:
        ConfigError: If it cannot be one.
    """
    kinds = {part: str(tokenizer.specification[part]["kind"]) for part in tokenizer.specification}
    for part in ("encoder", "decoder"):
        require(
            kinds[part] == "cnn",
            f"diffusers' VQModel has encoder=cnn decoder=cnn, not {part}={kinds[part]}",
        )
    require(
        kinds["codebook"] in TABLES,
        f"diffusers' VQModel takes the nearest row of one table, as codebook={' or '.join(TABLES)} "
        f"does, but codebook={kinds['codebook']} does not",
    )
    encoder, decoder = (
        cast(Mapping[str, Any], tokenizer.specification[part]["arguments"])
        for part in ("encoder", "decoder")
    )
    for name in ("channels", "multipliers", "num_blocks", "latent_channels"):
        require(
            encoder[name] == decoder[name],
            f"diffusers' VQModel has one {name} for both networks, but encoder.{name} is "
            f"{encoder[name]} and decoder.{name} is {decoder[name]}",
        )
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


def read_settings(file: Path) -> Settings:
    """Read ``config.json``.

    Raises:
        CheckpointError: If it cannot be read, or is of another class.
        ConfigError: If it has settings that are not known, or that ``cnn`` networks cannot have.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name != CLASS:
        raise CheckpointError(f"cannot read {file}: its _class_name is {name!r}, not {CLASS!r}")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    return bind(Settings, known, where=CONFIG_FILE)


def read_current_weights(path: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Read the weights in a directory, with attention named as it is now.

    Raises:
        CheckpointError: If there are none, or they cannot be read.
    """
    files = [path / name for name in (WEIGHTS_FILE, OLD_WEIGHTS_FILE) if (path / name).is_file()]
    if not files:
        raise CheckpointError(
            f"no weights in {path}: looked for {WEIGHTS_FILE} and {OLD_WEIGHTS_FILE}"
        )
    weights = read_weights(files[0])
    for name in list(weights):
        for old, new in OLD_ATTENTION:
            if old in name:
                weights.setdefault(name.replace(old, new), weights.pop(name))
    return weights


def groups_of(widths: Sequence[int]) -> list[int]:
    """List the numbers of groups that norms of those widths have."""
    with torch.device("meta"):  # a file may claim any width
        return sorted({group_norm(width).num_groups for width in widths})


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
    weights: Mapping[str, Shaped[Tensor, "..."]], levels: int
) -> dict[str, Shaped[Tensor, "..."]]:
    """Give weights of ours their names and shapes, and leave out what a ``VQModel`` has not."""
    theirs = {their_name(name, levels): item for name, item in weights.items() if is_shared(name)}
    for name, item in theirs.items():
        if MATRIX.search(name):
            theirs[name] = rearrange(item, "o i 1 1 -> o i")
    return theirs


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
