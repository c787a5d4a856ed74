"""What a resumed run may change, and what it may not."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from vqtrain.app.parts.choose import OPEN_GROUPS
from vqtrain.app.parts.compose import (
    CommandLine,
    compose,
    flatten,
    group_choices,
    is_group_choice,
    lookup_config,
    parse,
    put,
)
from vqtrain.app.parts.mistakes import unknown_key
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.training.checkpoints import TrainingCheckpoint, has_other_validation
from vqtrain.training.data_module import TrainingData

# Neither the numbers nor the order of the data depend on these.
FREE = (
    "run_dir",
    "allow",
    "name",
    "data.num_workers",
    "data.max_bad_fraction",
    "trainer.max_time",
    "trainer.checkpoint_activations",
    "trainer.ema_device",
    "trainer.log_every",
    "trainer.validate_every",
    "trainer.checkpoint_every",
    "trainer.profile",
)
# These may be changed, but results then differ from those of an uninterrupted run.
WARNED = (
    *("trainer.devices", "trainer.num_nodes", "trainer.max_steps", "trainer.accumulate"),
    *("trainer.strategy", "trainer.memory_format", "trainer.compile"),
    *("data.batch_size", "optim.lr", "optim.discriminator.lr"),
)
# Images may be moved: ``check_images`` compares them.
IMAGES = ("data.train", "data.val")

CHANGED_TRAINING = (
    "the images of data.train are not those of the checkpoint: the epoch continues in another order"
)
CHANGED_VALIDATION = (
    "the images of data.val are not those of the checkpoint: values of val/ before and after "
    "cannot be compared, and best.ckpt starts anew"
)

# At most so many changes are named.
MAX_SHOWN = 3

# Groups of which every key is free.
FREE_GROUPS = ("logger", "weights")


def continued_config(
    command_line: CommandLine, saved: Mapping[str, object]
) -> tuple[dict[str, Any], list[str]]:
    """Work out the configuration of a resumed run.

    If the command line chooses from free groups alone, its values are changes to the saved
    configuration, so that ``resume=PATH`` alone continues the run. Otherwise the command line must
    describe the whole run again.

    Args:
        command_line: The command line.
        saved: The configuration inside the checkpoint.

    Returns:
        The configuration, and a warning for each change after which results differ.

    Raises:
        CheckpointError: If a change is one that a resumed run cannot make.
        ConfigError: If a key is unknown.
    """
    choices = group_choices(command_line.config_dir)
    chosen = [word for word in command_line.overrides if is_group_choice(word, choices)]
    if any(parse(word).key_or_group not in FREE_GROUPS for word in chosen):
        config = compose("train", command_line)
    else:
        config = copy.deepcopy(dict(saved))
        composed = lookup_config(command_line)
        for word in chosen:
            config[parse(word).key_or_group] = composed[parse(word).key_or_group]
        changes = [parse(word) for word in command_line.overrides if word not in chosen]
        typed = {change.key_or_group: change.value() for change in changes}
        for key, value in {**typed, **command_line.paths}.items():
            if key not in flatten(config) and not key.startswith(OPEN_GROUPS):
                raise ConfigError(unknown_key(key, flatten(config)))
            put(config, key, value)
    config["resume"] = None
    refused, warned = differences(saved, config, free=(*FREE, *IMAGES), warned=WARNED)
    if refused:
        raise CheckpointError(
            f"a resumed run cannot change {', '.join(refused)}: start a new run, with "
            "init_from=PATH to begin from the weights of this one"
        )
    before, after = flatten(saved), flatten(config)
    warnings = [
        f"{key} was {before.get(key)} and is now {after.get(key)}: results will differ from an "
        "uninterrupted run"
        for key in warned
    ]
    return config, warnings


def check_images(
    config: Mapping[str, Any], checkpoint: TrainingCheckpoint, data: TrainingData
) -> list[str]:
    """Compare the images of a resumed run with those of its checkpoint.

    Args:
        config: The configuration of the resumed run.
        checkpoint: What it continues from.
        data: Its images.

    Returns:
        What there is to remark.

    Raises:
        CheckpointError: If the key ``data.train`` now names other images.
    """
    saved, state, remarks = checkpoint["config"]["data"], checkpoint["training"], []
    assert isinstance(saved, Mapping), "a run has the group data"
    before, now = saved["batch_size"], data.settings.batch_size
    if data.buckets is not None and before != now:
        raise CheckpointError(
            f"data.aspect=buckets resumes only with data.batch_size={before}, of which its batches "
            f"are, got {now}"
        )
    if state["images"] != data.training.digest:
        train = config["data"]["train"]
        if train != saved["train"]:
            raise CheckpointError(
                f"a resumed run cannot change data.train ({saved['train']} -> {train}): these are "
                "other images; start a new run, with init_from=PATH to begin from the weights of "
                "this one"
            )
        remarks.append(CHANGED_TRAINING)
    if has_other_validation(state, data.validation.digest):
        remarks.append(CHANGED_VALIDATION)
    return remarks


def differences(
    saved: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    free: Sequence[str],
    warned: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Find what a resumed run cannot change, and what it should not.

    Args:
        saved: The one of the run.
        config: The other one.
        free: Keys that may differ.
        warned: Keys that may differ with a warning.

    Returns:
        What cannot be changed, each with both values, at most three and the number of the rest; and
        the keys that can, with a warning.
    """
    before, after = flatten(saved), flatten(config)
    changed = [
        key
        for key in {**before, **after}
        if key not in ("resume", *free)
        and key.partition(".")[0] not in FREE_GROUPS
        and before.get(key) != after.get(key)
    ]
    allowed = [key for key in changed if key in warned or key.startswith(OPEN_GROUPS)]
    refused = [key for key in changed if key not in allowed]
    # Another kind has other keys: one word for all of them.
    kinds = tuple(key.removesuffix("kind") for key in refused if key.endswith(".kind"))
    refused = [key for key in refused if key.endswith(".kind") or not key.startswith(kinds)]
    shown = [f"{key} ({before.get(key)} -> {after.get(key)})" for key in refused]
    if len(shown) > MAX_SHOWN:
        more = f"{shown[MAX_SHOWN - 1]} and {len(shown) - MAX_SHOWN} more"
        shown = [*shown[: MAX_SHOWN - 1], more]
    return shown, allowed
