"""The folder of a probe: whose it is, what is done in it, and with what."""

import json
from pathlib import Path

from vqtrain.app.parts.compose import flatten
from vqtrain.app.parts.output import holds_something
from vqtrain.errors import ConfigError
from vqtrain.generation.results import FILE, ProbeReport, read_probe

LOGS, TOKENIZER, TRANSFORMER = "logs", "tokenizer", "transformer"
TRAIN, VAL = "tokens/train", "tokens/val"
SAMPLES = "samples.png"


def read_begun(folder: Path, out: str) -> ProbeReport | None:
    """Read what a probe of one tokenizer has found so far; None if there is none yet.

    Raises:
        ConfigError: If the folder holds something else.
    """
    if not holds_something(folder):
        return None
    if (folder / FILE).is_file() and not (folder / TOKENIZER).is_dir() and is_of_several(folder):
        raise ConfigError(f"out={out} holds a probe of several tokenizers: give another folder")
    if not (folder / FILE).is_file():
        raise ConfigError(f"out={out} is not of vqtrain probe: give another folder")
    return read_probe(folder)


def check_several(folder: Path, out: str) -> None:
    """Refuse a folder that is not of a probe of several tokenizers.

    Raises:
        ConfigError: If it holds something else.
    """
    if not holds_something(folder) or is_of_several(folder):
        return
    if (folder / FILE).is_file():
        raise ConfigError(f"out={out} holds a probe of one tokenizer: give another folder")
    raise ConfigError(f"out={out} is not of vqtrain probe: give another folder")


def is_of_several(folder: Path) -> bool:
    """Say whether a folder holds those of several tokenizers."""
    return (folder / LOGS).is_dir() and not (folder / TOKENIZER).exists()


def check_same(before: ProbeReport, now: ProbeReport, out: str) -> None:
    """Refuse to continue with other images, or with another value of a key that is in use.

    Raises:
        ConfigError: Naming the first difference.
    """
    held = f"out={out} holds a probe"
    for side, images in now.images.items():
        if side in before.images and before.images[side] != images:
            raise ConfigError(f"{held} with other {side} images: give another out")
    known = flatten(before.settings)
    for key, value in flatten(now.settings).items():
        # As JSON, where a tuple is a list.
        if key in known and json.dumps(known[key]) != json.dumps(value):
            raise ConfigError(
                f"{held} with {key}={typed(known[key])}, not {typed(value)}: give "
                f"{key}={typed(known[key])}, or another out"
            )


def typed(value: object) -> str:
    """Write the value of a key as a user types it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
