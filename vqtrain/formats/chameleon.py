"""Chameleon's image tokenizer as transformers has it (ChameleonVQVAE), which has no decoder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.build import build
from vqtrain.decoders.cnn import CNNDecoder
from vqtrain.errors import CheckpointError
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.cnn import about, network, part
from vqtrain.formats.parts.pickles import read_safetensors
from vqtrain.formats.parts.taming import from_weights
from vqtrain.tokenizer.model import Tokenizer

# The language model around the tokenizer: by far the most of a whole model.
LANGUAGE_MODEL = re.compile(r"(model\.)?(layers|embed_tokens|norm|lm_head)\.")
# Where the tokenizer is in the model that generates, and in the one without a head.
PREFIXES = ("model.vqmodel.", "vqmodel.")


@final
class Chameleon(Converter):
    """Chameleon's image tokenizer as a directory of transformers has it, alone or in a model.

    Its ids decode to gray until the tokenizer is trained: transformers leaves the decoder out. The
    checkpoint that Chameleon was published with has it, and is of the kind ``taming``.

    References:
        Chameleon team 2024, arXiv:2405.09818; transformers, models/chameleon. The network and its
        loss are those of taming-transformers.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, with a new decoder."""
        weights = read_directory(path)
        with about(path):
            tokenizer = from_weights(weights | gray_decoder(weights), legacy=True)
        tokenizer.training_summary["decoder"] = "new: it gives gray until it is trained"
        return tokenizer


def read_directory(path: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Read the tokenizer's weights, without those of the language model around it.

    Raises:
        CheckpointError: If there are none, or a file cannot be read.
    """
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"cannot convert {path}: it is no directory with .safetensors files")
    weights: dict[str, Tensor] = {}
    for file in files:
        with about(file):
            weights |= read_safetensors(file, lambda name: not LANGUAGE_MODEL.match(name))
    for prefix in PREFIXES:
        weights = part(weights, prefix)
    return weights


def gray_decoder(
    weights: Mapping[str, Shaped[Tensor, "..."]],
) -> dict[str, Shaped[Tensor, "..."]]:
    """Make a decoder as the encoder is, whose last layer gives gray whatever the ids are."""
    arguments, channels = network(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = build("decoder", "cnn", {**arguments, "out_channels": channels})
    assert isinstance(decoder, CNNDecoder)
    for parameter in decoder.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    return {f"decoder.{name}": item for name, item in decoder.state_dict().items()}
