"""What exporters of the published VQGAN networks share: what they refuse, and their files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook
from vqtrain.errors import CheckpointError, require
from vqtrain.formats.parts.agreement import Agreement, Tolerance, compare
from vqtrain.formats.parts.cnn import GROUPS
from vqtrain.formats.parts.preprocess import write_preprocess
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.storage import write_whole

# What the constructor of their class takes.
CONFIG_FILE = "config.json"


def cnn_arguments(
    tokenizer: Tokenizer, owner: str, *, same: Sequence[str], is_wide: bool = False
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the arguments of encoder and decoder.

    Args:
        tokenizer: What is to be written.
        owner: Whose code is to load it, for errors.
        same: Arguments that both must have alike.
        is_wide: Whether that code has 3x3 convolutions next to the codebook.

    Raises:
        ConfigError: If they are not ``cnn``, or not alike.
    """
    for part in ("encoder", "decoder"):
        kind = tokenizer.specification[part]["kind"]
        require(kind == "cnn", f"{owner} has encoder=cnn decoder=cnn, not {part}={kind}")
    encoder, decoder = (
        cast(Mapping[str, Any], tokenizer.specification[part]["arguments"])
        for part in ("encoder", "decoder")
    )
    for name in same:
        require(
            encoder[name] == decoder[name],
            f"{owner} has one {name} for both networks, but encoder.{name} is {encoder[name]} and "
            f"decoder.{name} is {decoder[name]}",
        )
    has_convolution = encoder.get("latent_convolution") or decoder.get("latent_convolution")
    require(
        is_wide or not has_convolution,
        f"{owner} has no 3x3 convolution next to the codebook: latent_convolution must be false "
        "in encoder and decoder",
    )
    return encoder, decoder


def published_arguments(
    tokenizer: Tokenizer, owner: str, *, is_wide: bool = False, **fixed: object
) -> Mapping[str, Any]:
    """Return the arguments of networks that are those of the first VQGAN's code.

    Args:
        tokenizer: What is to be written.
        owner: Whose code is to load it, for errors.
        is_wide: Whether that code has 3x3 convolutions next to the codebook.
        **fixed: Arguments that cannot be chosen there, with the values that they have.

    Raises:
        ConfigError: If the networks are others.
    """
    same = ("channels", "multipliers", "num_blocks", "attention_factors", "latent_channels")
    arguments, _ = cnn_arguments(tokenizer, owner, same=same, is_wide=is_wide)
    for name, value in fixed.items():
        require(
            arguments[name] == value,
            f"{owner} has networks of {name}={value}, not {arguments[name]}",
        )
    widths = [arguments["channels"] * multiplier for multiplier in (1, *arguments["multipliers"])]
    require(
        all(width % GROUPS == 0 for width in widths),
        f"{owner} has norms of {GROUPS} groups: encoder.channels must be a multiple of {GROUPS}, "
        f"got {arguments['channels']}",
    )
    return arguments


def check_nearest(codebook: Codebook, owner: str, specification: Mapping[str, object]) -> None:
    """Refuse a codebook that is no plain table.

    Args:
        codebook: The codebook, or one inside another.
        owner: Whose code is to load it, for errors.
        specification: What it was built from.

    Raises:
        ConfigError: If it is another.
    """
    require(
        codebook.chooses_nearest,
        f"{owner} takes the nearest row of one table, which codebook={specification['kind']} does "
        "not",
    )


def with_table(
    tokenizer: Tokenizer, name: str = "codebook.vectors"
) -> dict[str, Shaped[Tensor, "..."]]:
    """Return the weights of the networks and projections, and the codes as they are compared.

    Args:
        tokenizer: Whose weights.
        name: Of the table among them.
    """
    own = {k: item for k, item in tokenizer.state_dict().items() if not k.startswith("codebook.")}
    return {**own, name: tokenizer.codebook_vectors}


def write_json(file: Path, content: object) -> None:
    """Write plain data."""
    text = json.dumps(content, indent=2)
    write_whole(file, lambda stream: stream.write(f"{text}\n".encode()))


def write_checkpoint(
    tokenizer: Tokenizer, file: Path, content: object, config: Mapping[str, object] | None = None
) -> None:
    """Write what ``torch.load`` reads, ``preprocess.py`` and the arguments of their class.

    Args:
        tokenizer: What is written.
        file: Where the checkpoint goes.
        content: Of the checkpoint.
        config: Those arguments, for ``CONFIG_FILE``; None for none.
    """
    write_whole(file, lambda opened: torch.save(content, opened))
    if config is not None:
        text = json.dumps(config)
        write_whole(file.with_name(CONFIG_FILE), lambda opened: opened.write(f"{text}\n".encode()))
    write_preprocess(tokenizer, file.parent)


def checkpoint_in(path: Path, ending: str) -> Path:
    """Return the checkpoint in a folder that was exported; a file is one itself.

    Raises:
        CheckpointError: If there is not just one.
    """
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{ending}"))
    if len(found) != 1:
        raise CheckpointError(
            f"cannot convert {path}: it holds {len(found)} files that end in {ending}, not one"
        )
    return found[0]


def compare_again(
    tokenizer: Tokenizer, again: Tokenizer, images: Sequence[Float[Tensor, "_ c *_"]]
) -> Agreement:
    """Compare a tokenizer with what was read again.

    Raises:
        VqtrainError: If it does not agree.
    """
    return compare(
        tokenizer, images, encode=again.encode, decode=again.decode, tolerance=Tolerance()
    )
