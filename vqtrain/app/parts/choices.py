"""Files of config groups that are read as they are, without composing."""

from pathlib import Path
from typing import Any

import yaml

from vqtrain.build import configs_folder, kinds, unknown
from vqtrain.errors import ConfigError


def metric_entries(names: object, config_dir: Path | None) -> list[str | dict[str, Any]]:
    """Give named metrics the arguments that ``configs/metric`` has for them.

    Args:
        names: A list of words, of ``package.module:Class``, and of mappings of ``kind`` and
            arguments.
        config_dir: The user's own folder of configs, or None.

    Raises:
        ConfigError: If it is no such list, or there is no such word.
    """
    if not isinstance(names, list):
        raise ConfigError(f"metrics must be a list, such as metrics=[psnr], got {names!r}")
    entries: list[str | dict[str, Any]] = []
    for name in names:
        own: dict[str, Any] = {"kind": name} if isinstance(name, str) else dict(name or {})
        kind = str(own.get("kind"))
        known = {} if ":" in kind else read_choice("metric", kind, config_dir)
        entry = {**known, **own, "kind": known.get("kind", kind)}
        entries.append(kind if entry == {"kind": kind} else entry)
    return entries


def refuse_unlisted(metrics: str) -> None:
    """Refuse metrics, or one, that were typed without brackets.

    Raises:
        ConfigError: If they were; the message says how to write them.
    """
    if {*metrics.split(",")} <= {*kinds("metric")}:
        raise ConfigError(f"metrics are a list: write metrics=[{metrics}]")


def read_choice(group: str, choice: str, config_dir: Path | None) -> dict[str, Any]:
    """Read a file of a config group that composes nothing.

    Raises:
        ConfigError: If there is none.
    """
    folders = [folder / group for folder in (config_dir, configs_folder()) if folder is not None]
    files = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.yaml")}
    if choice not in files:
        raise ConfigError(unknown(group, choice, files))
    plain: dict[str, Any] = yaml.safe_load(files[choice].read_text(encoding="utf-8"))
    return plain
