"""What a run takes over from the tokenizer that it starts from: its architecture and weights."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from vqtrain.build import CONTEXT, kind_and_arguments
from vqtrain.errors import ConfigError, naming
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.parts import PARTS, listed
from vqtrain.training.module import TokenizerTraining


def architecture(init_from: str, allow: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return the groups ``encoder``, ``codebook`` and ``decoder`` of a tokenizer, and ``data``.

    What a part asks of the run is left out, and of ``data`` there are the channels and the range.

    Raises:
        CheckpointError: If there is no such tokenizer, or it names a class that is not allowed.
    """
    with naming("init_from"):
        config, _ = storage.read(init_from, allow=allow)
    groups: dict[str, dict[str, object]] = {}
    for part in PARTS:
        kind, arguments = kind_and_arguments(
            part, cast(Mapping[str, Mapping[str, object]], config)[part]
        )
        own = {name: value for name, value in arguments.items() if name not in CONTEXT}
        groups[part] = {"kind": kind, **own}
    pixel_range = storage.pixel_range(config["image"])
    groups["data"] = {
        "channels": config["image"]["channels"],
        "range": None if pixel_range is None else list(pixel_range),
    }
    return groups


def begin(module: TokenizerTraining, config: Mapping[str, Any]) -> list[str]:
    """Give a new run the weights it starts from: of ``init_from``, or published ones, or both.

    Args:
        module: The training, as it is built.
        config: The composed configuration.

    Returns:
        What was loaded, for people.

    Raises:
        CheckpointError: If there is no such tokenizer.
        ConfigError: If none of its weights fits.
        WeightsError: If published weights are missing.
    """
    published = config["weights"]["encoder"]
    if config["init_from"] is not None:
        return begin_from(module, config["init_from"], config["allow"], published)
    return list(filter(None, [module.tokenizer.encoder.load_pretrained(published)]))


def begin_from(
    module: TokenizerTraining, init_from: str, allow: Sequence[str], published: str | None
) -> list[str]:
    """Give a new run the weights of a tokenizer, as far as they have its names and shapes.

    A codebook is taken over as a whole or not at all: its statistics belong to its codes. An
    encoder of which something is missing there starts from its published weights, if it has any.

    Args:
        module: The training, as it is built.
        init_from: A tokenizer, a run or a checkpoint.
        allow: Packages outside vqtrain whose classes it may name.
        published: The file of the encoder's published weights, or None to find it.

    Returns:
        What was loaded, what is new and what was left, for people.

    Raises:
        CheckpointError: If there is no such tokenizer.
        ConfigError: If none of its weights fits.
        WeightsError: If published weights are missing.
    """
    with naming("init_from"):
        given = Tokenizer.from_pretrained(init_from, allow=allow).state_dict()
    own = module.tokenizer.state_dict()
    loaded = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape
    }
    codebook = {name for name in own if name.startswith("codebook.")}
    module.codebook_is_new = not codebook <= loaded.keys()
    if module.codebook_is_new:
        loaded = {name: loaded[name] for name in loaded if name not in codebook}
    if not loaded:
        raise ConfigError(f"init_from={init_from}: none of its {len(given)} tensors fits this run")
    lines = []
    if any(name.startswith("encoder.") for name in own.keys() - loaded.keys()):
        lines.append(module.tokenizer.encoder.load_pretrained(published))
    module.tokenizer.load_weights({**module.tokenizer.state_dict(), **loaded})
    tensors = {
        "loaded": loaded,
        "new": own.keys() - loaded.keys(),
        "left": given.keys() - loaded.keys(),
    }
    lines += [f"init_from: {count_of(names)} {word}" for word, names in tensors.items() if names]
    return list(filter(None, lines))


def count_of(names: Iterable[str]) -> str:
    """Count tensors, and name the modules that they are of.

    Example:
        >>> count_of(["encoder.a", "encoder.b", "codebook.vectors"])
        '3 tensors of codebook and encoder'
    """
    names = list(names)
    modules = sorted({name.partition(".")[0] for name in names})
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} of {listed(modules)}"
