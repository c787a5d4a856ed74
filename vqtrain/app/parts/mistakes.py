"""What is said of words that are no keys, no choices or not to be read."""

import re
from collections.abc import Collection, Mapping, Sequence

from hydra.core.override_parser.types import Override

from vqtrain.build import unknown
from vqtrain.errors import ConfigError

# Where a further loss term goes: under a name of its own.
TERM = re.compile(r"loss\.\w+")
# What other commands call keys of a run.
OF_A_RUN = {
    **dict.fromkeys(("images", "videos", "sounds"), "data.train"),
    "device": "trainer.accelerator",
    "out": "run_dir",
    "tokenizer": "init_from",
}


def unreadable(words: Sequence[str], place: int, example: str | None) -> ConfigError:
    """Say what is wrong with a word that is neither an option nor ``key=value``.

    Args:
        words: All words.
        place: Of the wrong one.
        example: A key that such a word may be the value of; None if there is none.
    """
    word, after = words[place], "".join(words[place + 1 : place + 2])
    before = words[place - 1] if place else ""
    if word.startswith("=") or after.startswith("=") or before.endswith("="):
        return ConfigError(f"cannot read {word!r}: write key=value, without spaces around =")
    such = f"{example}={word}" if example else "codebook.size=1024"
    return ConfigError(f"cannot read {word!r}: write key=value, such as {such}")


def unknown_key(key: str, keys: Collection[str]) -> str:
    """Say that a run has no such key, with what it calls a key of another command."""
    meant = OF_A_RUN.get(key)
    if meant in keys:
        return f"unknown key {key!r}, did you mean {meant!r}?"
    return unknown("key", key, keys)


def several_values(word: str) -> ConfigError:
    """Say how several values are written, which one run does not take."""
    key, _, value = word.partition("=")
    is_list = "." in key and re.fullmatch(r"[\w.+-]+(,[\w.+-]+)+", value)
    listed = f", and a list is {key}=[{value}]" if is_list else ""
    return ConfigError(
        f"cannot read {word!r}: a run takes one value for each key; vqtrain sweep takes "
        f"several{listed}"
    )


def check_choice(override: Override, choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse a choice that a config group does not have."""
    group, value = override.key_or_group, override.value()
    if group.startswith("loss/") and not TERM.fullmatch(override.package or "loss.any"):
        raise ConfigError(
            f"{group}@{override.package} is no term of the loss: write "
            f"+{group}@loss.NAME={value}, with a name of your own"
        )
    with_slash = group.replace(".", "/")
    if with_slash != group and with_slash in choices:
        raise ConfigError(f"{group} is a group: write {with_slash}={value}")
    if group in choices and isinstance(value, str) and value not in choices[group]:
        raise ConfigError(unknown(f"{group}", value, choices[group]))
    if group in choices and not isinstance(value, str):
        raise ConfigError(f"{group} must be one of {', '.join(choices[group])}, got {value!r}")


def check_key(override: Override, keys: Collection[str]) -> None:
    """Refuse a key that the composed configuration does not have."""
    key = override.key_or_group
    if key not in keys and not override.is_add():
        raise ConfigError(unknown_key(key, keys))
