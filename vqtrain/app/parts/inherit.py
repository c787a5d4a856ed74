"""What a run takes over from the tokenizer that it starts from: its architecture and weights."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from vqtrain.app.parts.resume import FREE, differences
from vqtrain.build import CONTEXT, kind_and_arguments
from vqtrain.errors import CheckpointError, ConfigError, naming, require
from vqtrain.ops.paths import expand
from vqtrain.tokenizer import checks, storage
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.parts import PARTS, listed, modules_of
from vqtrain.training.checkpoints import TrainingCheckpoint
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.run_directory import last_checkpoint
from vqtrain.training.tokenizer_state import TokenizerState, read_training

# Of each run alone, so that a difference says nothing.
OWN = ("seed", "init_from", "init_parts", "init_from_discriminator")


def architecture(
    init_from: str, allow: Sequence[str], parts: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Return the groups of some parts of a tokenizer, and ``data``.

    What a part asks of the run is left out, and of ``data`` there are the channels and the range.

    Raises:
        CheckpointError: If there is no such tokenizer, or it names a class that is not allowed.
    """
    with naming("init_from"):
        config, _ = storage.read(init_from, allow=allow)
    groups: dict[str, dict[str, object]] = {}
    for part in parts:
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
        ConfigError: If none of its weights fits, or what else is asked of it does not.
        WeightsError: If published weights are missing.
    """
    published = config["weights"]["encoder"]
    if config["init_from"] is not None:
        return begin_from(module, config, published)
    for key, value in {
        "init_parts": config["init_parts"],
        "init_from_discriminator": config["init_from_discriminator"],
        "codebook.grow_from": config["codebook"].get("grow_from"),
    }.items():
        require(not value, f"{key} says what init_from=PATH gives, and there is no init_from")
    line = module.tokenizer.encoder.load_pretrained(published)
    known = names_of("encoder", module.tokenizer.state_dict()) if line else set()
    return list(filter(None, [line, warning_of(module, known)]))


def begin_from(
    module: TokenizerTraining, config: Mapping[str, Any], published: str | None
) -> list[str]:
    """Give a new run the weights of a tokenizer, as far as they have its names and shapes.

    A codebook is taken over as a whole or not at all: its statistics belong to its codes. An
    encoder of which something is missing there starts from its published weights, if it has any.

    Args:
        module: The training, as it is built.
        config: The composed configuration.
        published: The file of the encoder's published weights, or None to find it.

    Returns:
        What was loaded, what is new and what was left, for people.

    Raises:
        CheckpointError: If there is no such tokenizer.
        ConfigError: If none of its weights fits, or what else is asked of it does not.
        WeightsError: If published weights are missing.
    """
    init_from, tokenizer = config["init_from"], module.tokenizer
    with naming("init_from"):
        source = Tokenizer.from_pretrained(init_from, allow=config["allow"])
    given, own = source.state_dict(), tokenizer.state_dict()
    taken = modules_of(config["init_parts"] or PARTS)
    loaded = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape and name.partition(".")[0] in taken
    }
    lines: list[str | None] = []
    codebook = names_of("codebook", own)
    if config["codebook"].get("grow_from") is not None:
        lines.append(grow(tokenizer, source, config["codebook"]["grow_from"]))
        own = tokenizer.state_dict()
        loaded |= {name: own[name] for name in codebook}
        before = {n for n in own if n.partition(".")[0] in modules_of(["encoder", "codebook"])}
        require(
            before <= loaded.keys(),
            "codebook.grow_from keeps ids only behind the encoder of init_from, as it is there",
        )
    module.codebook_is_new = not codebook <= loaded.keys() or "codebook" not in taken
    if module.codebook_is_new:
        loaded = {name: loaded[name] for name in loaded if name not in codebook}
    if not loaded and codebook:
        raise ConfigError(f"init_from={init_from}: none of its {len(given)} tensors fits this run")
    known = set(loaded)
    if names_of("encoder", own) - known:
        lines.append(tokenizer.encoder.load_pretrained(published))
        known |= names_of("encoder", own) if lines[-1] else set()
    tokenizer.load_weights({**tokenizer.state_dict(), **loaded})
    tensors = {
        "loaded": loaded,
        "new": own.keys() - loaded.keys(),
        "left": given.keys() - loaded.keys(),
    }
    lines += [f"init_from: {count_of(names)} {word}" for word, names in tensors.items() if names]
    trained = training_of(init_from)
    if config["init_from_discriminator"]:
        lines.append(take_discriminator(module, trained, config))
    lines += [other_settings(trained, config), warning_of(module, known)]
    return list(filter(None, lines))


def grow(tokenizer: Tokenizer, source: Tokenizer, grow_from: int) -> str:
    """Let the codebook take over one of fewer codes, so that every id stays; return what it did.

    Raises:
        ConfigError: If the other codebook is not of this kind and of that many codes, or this one
            cannot grow.
    """
    own, given = tokenizer.codebook, source.codebook
    kinds = [each.specification["codebook"]["kind"] for each in (source, tokenizer)]
    with naming("codebook.grow_from"):
        require(
            kinds[0] == kinds[1] and own.state_dict().keys() == given.state_dict().keys(),
            f"the codebook must be of the kind that it grows from, {kinds[0]}, got {kinds[1]}",
        )
        require(
            grow_from == given.size < own.size,
            f"it must be {given.size}, the codes of init_from, and codebook.size more than that; "
            f"got {grow_from} and {own.size}",
        )
        own.grow(given.state_dict())
    return f"init_from: the codebook grows from {given.size} to {own.size} codes"


def training_of(init_from: str) -> TrainingCheckpoint | None:
    """Read the newest checkpoint of a run, or a checkpoint file; None for a tokenizer alone."""
    location = expand(init_from)
    with suppress(CheckpointError):
        file = location if location.is_file() else last_checkpoint(location)
        return None if file is None else read_training(file, mmap=True)
    return None


def take_discriminator(
    module: TokenizerTraining, trained: TrainingCheckpoint | None, config: Mapping[str, Any]
) -> str:
    """Load the discriminator of another run, without its optimizer, and return what was loaded.

    Raises:
        ConfigError: If there is none here or there, or they differ.
    """
    own = module.objective.discriminator
    with naming("init_from_discriminator"):
        state = None
        if trained is not None:
            state = cast(TokenizerState, trained["training"])["discriminator"]
        if trained is None or state is None:
            raise ConfigError(
                f"{config['init_from']} holds no discriminator: name a run or a checkpoint that "
                "was trained with one"
            )
        if own is None:
            raise ConfigError("this run has no discriminator: choose that of init_from")
        both = [{"discriminator": each["discriminator"]} for each in (trained["config"], config)]
        wrong, _ = differences(*both, free=(), warned=())
        wrong = wrong or checks.differences(state["weights"], own.state_dict())
        require(not wrong, f"the discriminator is another one than there: {'; '.join(wrong[:3])}")
        own.load_state_dict(state["weights"])
    return f"init_from: {len(state['weights'])} tensors of discriminator loaded"


def other_settings(trained: TrainingCheckpoint | None, config: Mapping[str, Any]) -> str | None:
    """Name settings of another run that this one does not share; None if there are none."""
    if trained is None:
        return None
    both = (trained["config"], config)
    shared = both[0].keys() & both[1].keys() - {*PARTS, *OWN}
    before, now = ({key: each[key] for key in each if key in shared} for each in both)
    found, _ = differences(before, now, free=(*FREE, "trainer.max_steps"), warned=())
    if not found:
        return None
    return f"init_from takes over no settings of training, and there differ {', '.join(found)}"


def warning_of(module: TokenizerTraining, known: Collection[str]) -> str | None:
    """Warn of frozen tensors that no trained weights were loaded for."""
    names = module.frozen.names - set(known)
    if module.tokenizer.codebook.is_fixed:
        names -= names_of("codebook", names)
    if not names:
        return None
    return (
        f"warning: trainer.freeze keeps {count_of(names)} at their first values: init_from=PATH "
        "gives trained ones"
    )


def names_of(module: str, names: Iterable[str]) -> set[str]:
    """Choose the tensors of a module of the tokenizer."""
    return {name for name in names if name.partition(".")[0] == module}


def count_of(names: Iterable[str]) -> str:
    """Count tensors, and name the modules that they are of.

    Example:
        >>> count_of(["encoder.a", "encoder.b", "codebook.vectors"])
        '3 tensors of codebook and encoder'
    """
    names = list(names)
    modules = sorted({name.partition(".")[0] for name in names})
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} of {listed(modules)}"
