"""The groups and keys of a configuration, and lists of kinds, for ``--help``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from re import Match
from typing import Any

from vqtrain.app.parts.compose import CommandLine, compose, flatten, group_choices
from vqtrain.app.parts.pages import LISTING, describe, describe_kinds, kinds_for, read_page
from vqtrain.build import configs_folder

TITLES = {
    "format.convert": "kinds, and their own keys:",
    "format.export": "formats, and their own keys:",
    "launcher": "launchers, and their launcher_options:",
}


def fill(text: str, command_line: CommandLine) -> str:
    """Put in the lists that a help names, such as ``${launcher}``."""

    def listing(found: Match[str]) -> str:
        name = found[2]
        if name == "train":
            return describe_keys(name, command_line)
        return f"{TITLES[name]}\n{describe_kinds(kinds_for(name))}"

    return LISTING.sub(listing, text)


def describe_keys(name: str, command_line: CommandLine) -> str:
    """Describe the choices of each group, and the keys with what was typed.

    What a key means is the comment behind it in the yaml of its group.
    """
    choices = group_choices(command_line.config_dir)
    lines = ["groups (group=choice):"]
    lines += [f"  {group:<20} {', '.join(names)}" for group, names in choices.items()]
    config = compose(name, command_line)
    keys = flatten(config)
    meanings = {"callbacks": "callbacks.NAME.kind=package.module:Class, and its arguments"} | {
        key: f"chosen by {group.replace('.', '/')}=WORD" if last == "kind" else ""
        for key in keys
        for group, _, last in [key.rpartition(".")]
        if key != "callbacks"
    }
    for folder in filter(None, (configs_folder(), command_line.config_dir)):
        meanings |= meanings_in(folder / f"{name}.yaml", "")
        for group in choices:
            for file in files_of(folder, group, config):
                meanings |= meanings_in(file, f"{group.replace('/', '.')}.")
        for term, node in config.get("loss", {}).items():
            if f"loss/{term}" not in choices:  # a term under a name of its own
                for file in (folder / "loss").glob(f"*/{node.get('kind')}.yaml"):
                    meanings |= meanings_in(file, f"loss.{term}.")
    title = "keys and their values; those of other choices: discriminator=patchgan --help"
    return "\n".join([*lines, "", title, *describe(keys, meanings).splitlines()[1:]])


def files_of(folder: Path, group: str, config: Mapping[str, Any]) -> Iterator[Path]:
    """Find the yamls of a group that describe a configuration, that of its kind as the last one."""
    node: Any = config
    for part in group.split("/"):
        node = node.get(part) or {}
    files = sorted((folder / group).glob("*.yaml"))
    kind = node.get("kind")
    yield from (file for file in files if kind is None or file.stem == kind)


def meanings_in(file: Path, prefix: str) -> dict[str, str]:
    """Read the comments behind the keys of a yaml; none if there is no such file."""
    if not file.is_file():
        return {}
    page = read_page(file.read_text(encoding="utf-8"))
    return {f"{prefix}{key}": meaning for key, meaning in page.meanings.items() if meaning}
