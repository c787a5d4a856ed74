"""What the formats of the published VQGAN networks share: from names and shapes to a tokenizer.

Our ``cnn`` modules have the parameter names of that code, so a file's names say how many levels,
blocks and attentions there are, and its shapes say how wide they are. What a file does not say
(32 groups of eps 1e-6 in each norm, asymmetric padding) is the same in all of them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.formats.parts.loading import Names, listed, load, renamed
from vqtrain.tokenizer.model import Tokenizer

PROJECTIONS: Names = (("quant_conv.", "project_in."), ("post_quant_conv.", "project_out."))
# Where they are 3x3 convolutions.
CONVOLUTIONS: Names = (
    ("quant_conv.", "encoder.quant_conv."),
    ("post_quant_conv.", "decoder.post_quant_conv."),
)

# The table of codes in nearly all of them.
VECTORS = "quantize.embedding.weight"
TABLE: Names = ((VECTORS, "codebook.vectors"),)

# Parts of published networks that ours cannot have, by what their names contain.
FOREIGN = {
    r"\.(to_qkv|to_out)\.": "linear attention",
    r"\.conv_shortcut\.": "3x3 shortcuts (conv_shortcut)",
    r"\.temb_proj\.": "time embeddings",
    r"norm\w*\.running_mean$": "batch normalization",
}

GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class Table:
    """A codebook, with its tensors by their names in the file.

    Attributes:
        kind: Its word.
        arguments: Those besides ``size`` and ``dim``, which the file says; an ``inner`` codebook
            gets the ``dim``.
        names: Names in the file and in our codebook, which begin with ``codebook.``.
        copies: Names in the file of tensors that it holds a second time, and where they are first.
    """

    kind: str
    arguments: Mapping[str, object]
    names: Names
    copies: Mapping[str, str] = field(default_factory=dict)


def drop(
    weights: Mapping[str, Shaped[Tensor, "..."]], *beginnings: str
) -> dict[str, Shaped[Tensor, "..."]]:
    """Leave out what a file holds for the training alone, by how its names begin."""
    return {name: item for name, item in weights.items() if not name.startswith(beginnings)}


def part(
    weights: Mapping[str, Shaped[Tensor, "..."]], beginning: str
) -> dict[str, Shaped[Tensor, "..."]]:
    """Take the part of a larger model whose names begin so, or everything if there is none."""
    found = {
        name.removeprefix(beginning): item
        for name, item in weights.items()
        if name.startswith(beginning)
    }
    return found or dict(weights)


def averaged(
    weights: Mapping[str, Shaped[Tensor, "..."]], *, use: bool
) -> dict[str, Shaped[Tensor, "..."]]:
    """Take or leave the averages that LitEma keeps, under names without dots.

    Args:
        weights: All of a file.
        use: Whether averages take the place of the weights that they are of, if there are any.

    Raises:
        CheckpointError: If weights have no average, or averages no weights.
    """
    beginning = "model_ema."
    own = {name: item for name, item in weights.items() if not name.startswith(beginning)}
    averages = part(weights, beginning) if len(own) < len(weights) else {}
    for counter in ("decay", "num_updates"):
        averages.pop(counter, None)
    if not averages or not use:
        return own
    flat = {name.replace(".", ""): name for name in own}
    wrong = [f"{beginning}{name} is unknown" for name in averages if name not in flat]
    wrong += [
        f"{beginning}{short} is missing"
        for short, name in flat.items()
        if own[name].is_floating_point() and short not in averages
    ]
    if wrong:
        raise CheckpointError(f"the averaged weights do not fit: {listed(wrong)}")
    return own | {flat[name]: item for name, item in averages.items()}


def vq(*, codebook_weight: float, commitment_weight: float, l2_normalize: bool = False) -> Table:
    """Describe a plain table that goes on training as published: by gradient alone."""
    arguments = {
        **PLAIN,
        "codebook_weight": codebook_weight,
        "commitment_weight": commitment_weight,
        "l2_normalize": l2_normalize,
        "gradient": "straight_through",
    }
    return Table(kind="vq", arguments=arguments, names=TABLE)


def assemble(
    weights: Mapping[str, Shaped[Tensor, "..."]], table: Table, names: Names = ()
) -> Tokenizer:
    """Build a tokenizer of ``cnn`` networks around a codebook, and load its weights strictly.

    Args:
        weights: All that the file holds, but for what its training alone needs.
        table: The codebook.
        names: Where modules are called otherwise than in the first VQGAN's code.

    Raises:
        CheckpointError: If a name is missing or unknown, a shape is another, or the network is one
            that ``cnn`` cannot be.
    """
    published = {renamed(name, names): item for name, item in weights.items()}
    arguments, channels = network(published)
    is_wide = bool(arguments["latent_convolution"])
    return load(
        weights,
        [*names, *(CONVOLUTIONS if is_wide else PROJECTIONS), *table.names],
        encoder={"kind": "cnn", "arguments": {**arguments, "in_channels": channels}},
        codebook={"kind": table.kind, "arguments": sized(published, table)},
        decoder={"kind": "cnn", "arguments": {**arguments, "out_channels": channels}},
        channels=channels,
        projects=not is_wide,  # else they are in the networks
        copies=table.copies,
    )


def network(weights: Mapping[str, Shaped[Tensor, "..."]]) -> tuple[dict[str, object], int]:
    """Read the arguments that encoder and decoder share, and the channels of images.

    A size is that which most tensors agree on, so that a wrong one is seen to be wrong.

    Raises:
        CheckpointError: If it is no such network, or one that ``cnn`` cannot be.
    """
    check_foreign(weights)
    levels = range(count(weights, "encoder.down."))
    blocks = range(count(weights, "encoder.down.0.block."))
    channels = vote(
        weights, (r"encoder\.conv_in\.\w+", 0), (r"encoder\.down\.0\.block\.0\.norm1\.\w+", 0)
    )
    block = r"\.block\.\d+\.(conv1|conv2|norm2)\.\w+"
    widths = [
        vote(weights, (rf"encoder\.down\.{level}{block}", 0), (rf"decoder\.up\.{level}{block}", 0))
        for level in levels
    ]
    latents = vote(
        weights,
        (r"encoder\.conv_out\.\w+", 0),
        (r"post_quant_conv\.\w+", 0),
        (r"(quant_conv|decoder\.conv_in)\.weight", 1),
    )
    image_channels = vote(weights, (r"encoder\.conv_in\.weight", 1), (r"decoder\.conv_out\.\w+", 0))
    for width in (channels, *widths):
        if width % GROUPS or width % channels:
            raise CheckpointError(
                f"its levels have {widths} channels and its first layer {channels}: all must be "
                f"multiples of the first, and of the {GROUPS} groups of the norms"
            )
    factors = [
        2**level
        for level in levels
        if has(weights, f"encoder.down.{level}.attn.") or has(weights, f"decoder.up.{level}.attn.")
    ]
    arguments = {
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "num_blocks": len(blocks),
        "attention_factors": factors,
        "latent_channels": latents,
        "dropout": 0.0,
        "latent_convolution": vote(weights, (r"(post_)?quant_conv\.weight", 2), default=1) > 1,
    }
    return arguments, image_channels


def sized(weights: Mapping[str, Shaped[Tensor, "..."]], table: Table) -> dict[str, object]:
    """Read the number of codes and their channels, and add them to the codebook's arguments."""
    patterns = [rf"{re.escape(name)}\w*" for name, _ in table.names]
    dim = vote(weights, (r"quant_conv\.\w+", 0), (r"post_quant_conv\.weight", 1), (patterns[0], 1))
    # Where there is no table, any size will do: it is missing, as will be said.
    size = vote(weights, *((pattern, 0) for pattern in patterns), default=1)
    inner = table.arguments.get("inner")
    if isinstance(inner, Mapping):
        return {**table.arguments, "size": size, "inner": {**inner, "size": None, "dim": dim}}
    return {**table.arguments, "size": size, "dim": dim}


def check_foreign(weights: Mapping[str, Shaped[Tensor, "..."]]) -> None:
    """Refuse networks that ``cnn`` cannot be."""
    if not has(weights, "encoder.down.0.block.0."):
        raise CheckpointError("it has no encoder.down.0.block.0.*: not a network of this kind")
    for pattern, what in FOREIGN.items():
        found = next((name for name in weights if re.search(pattern, name)), None)
        if found:
            raise CheckpointError(f"its network has {what}, which cnn has not: {found}")
    if not has(weights, "encoder.mid.attn_1."):
        raise CheckpointError(
            "its network has no attention in the middle (attn_type: none), which cnn always has"
        )
    if has(weights, "encoder.down.1.") and not has(weights, "encoder.down.0.downsample."):
        raise CheckpointError(
            "its network halves the resolution without convolutions (resamp_with_conv: false), "
            "which cnn does with them"
        )


def vote(
    weights: Mapping[str, Shaped[Tensor, "..."]],
    *places: tuple[str, int],
    default: int | None = None,
) -> int:
    """Return the size that most tensors have, of those whose names match, along an axis each.

    Raises:
        CheckpointError: If there is none and no default.
    """
    found = Counter(
        item.shape[axis]
        for pattern, axis in places
        for name, item in weights.items()
        if item.ndim > axis and re.fullmatch(pattern, name)
    )
    if not found and default is None:
        places_said = " or ".join(pattern.replace("\\", "") for pattern, _ in places)
        raise CheckpointError(f"it has no tensor of the form {places_said}")
    return max(found, key=lambda size: found[size]) if found else cast(int, default)


def count(weights: Mapping[str, Shaped[Tensor, "..."]], beginning: str) -> int:
    """Count modules that are numbered from 0."""
    number = 0
    while has(weights, f"{beginning}{number}."):
        number += 1
    return number


def has(weights: Mapping[str, Shaped[Tensor, "..."]], beginning: str) -> bool:
    """Say whether there is a name with this beginning."""
    return any(name.startswith(beginning) for name in weights)


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Say of which file an error is.

    Raises:
        CheckpointError: If there was one.
    """
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"cannot convert {path}: {error}") from error
