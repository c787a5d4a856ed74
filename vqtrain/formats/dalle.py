"""The tokenizer of DALL-E: two files that hold whole modules."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import torch
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, has, vote
from vqtrain.formats.parts.loading import check_same, load
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.tokenizer.model import Tokenizer

FILES = ("encoder.pkl", "decoder.pkl")
# The classes of which they are; none of them is imported.
MODULES = re.compile(r"dall_e\.(encoder|decoder|utils)\.\w+|torch\.nn\.modules\.\w+\.\w+")
SCORES, CODES = "encoder.blocks.output.conv", "decoder.blocks.input"
# As the paper trained it: at its last temperature, and with a divergence of weight 6.6 that is a
# sum over 32 x 32 positions, divided by 256 x 256 x 3 values as is all of its loss.
GUMBEL = {
    "kl_weight": 6.6 / 192,
    "temperature": 0.0625,
    "final_temperature": 0.0625,
    "temperature_steps": 0,
}


@final
class DALLE(Converter):
    """The discrete VAE of DALL-E, in a directory with ``encoder.pkl`` and ``decoder.pkl``.

    References:
        Ramesh et al. 2021, arXiv:2102.12092; openai/DALL-E, dall_e/encoder.py and decoder.py.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Convert it. Pixels in [0, 1], as there, are in [-1, 1] here."""
        with about(path):
            lacking = [name for name in FILES if not (path / name).is_file()]
            if lacking:
                raise CheckpointError(f"a directory with {' and '.join(FILES)} is needed")
            weights = {
                f"{name.removesuffix('.pkl')}.{key}": item
                for name in FILES
                for key, item in read_weights(path / name, modules=MODULES).items()
            }
            return from_weights(weights)


def from_weights(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Tokenizer:
    """Build the tokenizer of the tensors of both modules.

    Raises:
        CheckpointError: If it is another network.
    """
    groups, blocks = (
        numbered(weights, f"encoder.blocks.{words}") for words in ("group_", "group_1.block_")
    )
    if not groups or not blocks:
        raise CheckpointError("it has no encoder.blocks.group_1.block_1: another network")
    widths = [
        vote(
            weights,
            (rf"encoder\.blocks\.group_{group}\.block_\d+\.res_path\.conv_4\.\w", 0),
            (rf"decoder\.blocks\.group_{groups + 1 - group}\.block_\d+\.res_path\.conv_4\.\w", 0),
        )
        for group in range(1, groups + 1)
    ]
    if any(width % widths[0] or width < 4 for width in widths):
        raise CheckpointError(f"its groups have {widths} channels: not multiples of the first")
    network = {
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "num_blocks": blocks,
    }
    first = r"decoder\.blocks\.group_1\.block_1\.(id_path\.w|res_path\.conv_1\.w)"
    dim = vote(weights, (r"decoder\.blocks\.input\.\w", 0), (first, 1))
    channels = vote(weights, (r"encoder\.blocks\.input\.w", 1), default=3)
    size = vote(weights, (rf"{re.escape(SCORES)}\.\w", 0), (rf"{re.escape(CODES)}\.w", 1))
    return load(
        as_tables(weights, dim),
        list(names(groups, blocks)),
        encoder={"kind": "dvae", "arguments": {**network, "in_channels": channels}},
        codebook={
            "kind": "gumbel",
            "arguments": {**GUMBEL, "size": size, "dim": dim, "latent_dim": widths[-1]},
        },
        decoder={
            "kind": "dvae",
            "arguments": {**network, "out_channels": channels, "latent_channels": dim},
        },
        channels=channels,
        projects=False,
    )


def as_tables(
    weights: Mapping[str, Shaped[Tensor, "..."]], dim: int
) -> dict[str, Shaped[Tensor, "..."]]:
    """Turn the convolutions that score and that look codes up into a linear map and a table.

    Raises:
        CheckpointError: If the latter's bias, which is a part of every code, does not fit.
    """
    found = dict(weights)
    bias = f"{CODES}.b"
    check_same({bias: found.pop(bias)} if bias in found else {}, {bias: torch.empty(dim)})
    for name in (f"{SCORES}.w", f"{CODES}.w"):
        if name in found and found[name].shape[2:] == (1, 1):
            found[name] = found[name][:, :, 0, 0]
    codes = found.get(f"{CODES}.w")
    if codes is not None and codes.ndim == 2 and len(codes) == dim:
        found[f"{CODES}.w"] = codes.float().T + weights[bias].float()
    return found


def names(groups: int, blocks: int) -> Iterator[tuple[str, str]]:
    """List what each tensor is called there and here."""
    tensors = (("w", "weight"), ("b", "bias"))
    layers = [
        ("encoder.blocks.input", "encoder.layers.0"),
        (SCORES, "codebook.scores"),
        ("decoder.blocks.output.conv", f"decoder.layers.{groups + 1}"),
    ]
    for side, start in (("encoder", 1), ("decoder", 0)):
        for group in range(groups):
            for block in range(blocks):
                theirs = f"{side}.blocks.group_{group + 1}.block_{block + 1}"
                own = f"{side}.layers.{start + group}.{block}"
                layers.append((f"{theirs}.id_path", f"{own}.id_path"))
                layers += [
                    (f"{theirs}.res_path.conv_{layer + 1}", f"{own}.res_path.{2 * layer + 1}")
                    for layer in range(4)
                ]
    for theirs, own in layers:
        yield from ((f"{theirs}.{short}", f"{own}.{long}") for short, long in tensors)
    yield f"{CODES}.w", "codebook.vectors"


def numbered(weights: Mapping[str, Shaped[Tensor, "..."]], beginning: str) -> int:
    """Count modules that are numbered from 1."""
    number = 0
    while has(weights, f"{beginning}{number + 1}."):
        number += 1
    return number
