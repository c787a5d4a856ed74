"""``vqtrain convert``: somebody else's checkpoint becomes a tokenizer directory."""

import inspect
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from vqtrain.app.compose import compose, read_command_line
from vqtrain.app.keys import describe, read_keys, taken
from vqtrain.app.output import expand, fill_whole, new_folder
from vqtrain.build import bind, unknown
from vqtrain.errors import ConfigError
from vqtrain.formats.find import find, words
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.weights import sha256

KEYS: dict[str, tuple[object, str]] = {
    "kind": (None, "whose checkpoint it is, one of the kinds below"),
    "path": (None, "the checkpoint: a file, or a directory for some kinds"),
    "out": ("converted", "the tokenizer directory to write; one that exists is refused"),
}

EXAMPLES = """examples:
  vqtrain convert kind=taming path=vqgan_imagenet_f16_16384/ckpts/last.ckpt out=taming-f16
  vqtrain convert kind=llamagen path=vq_ds16_c2i.pt out=llamagen-vq16
"""

# The value of an option that was not typed, so that those of other kinds are noticed.
UNTYPED = object()


def main(typed: Sequence[str]) -> int:
    """Convert, or show the help."""
    options = {option for kind in words("convert") for option in options_of(kind)}
    keys = {**dict.fromkeys(options, (UNTYPED, "")), **KEYS}
    values = read_keys("vqtrain convert", typed, keys)
    if values is None:
        sys.stdout.write(usage())
        return 0
    own = taken(values, KEYS)
    chosen = {option: value for option, value in values.items() if value is not UNTYPED}
    return bind(run, {**own, "options": chosen}, where="vqtrain convert")


def run(*, kind: str | None, path: str | None, out: str, options: Mapping[str, object]) -> int:
    """Convert, and say what came of it; the arguments are those of ``KEYS`` and of the kind."""
    if not kind or not path:
        kinds = ", ".join(words("convert"))
        raise ConfigError(
            f"name kind and path: vqtrain convert kind=KIND path=PATH; kinds: {kinds}"
        )
    source, folder = expand(path), new_folder(out)
    convert = find("convert", kind)
    for option in options:
        if option not in options_of(kind):
            raise ConfigError(f"kind={kind}: {unknown('key', option, [*KEYS, *options_of(kind)])}")
    if not source.exists():
        raise ConfigError(f"path={path}: there is no such file or directory")
    tokenizer = bind(convert, {"path": source, **options}, where=f"kind={kind}")
    remarks = dict(tokenizer.training_summary)
    tokenizer.training_summary["converted_from"] = {"kind": kind, "files": hashes(source)}
    fill_whole(folder, tokenizer.save_pretrained)
    conclude(tokenizer, kind, source, folder, remarks)
    return 0


def options_of(kind: str) -> dict[str, tuple[object, str]]:
    """Return a kind's own keys, each with its default and what its docstring says of it."""
    convert = find("convert", kind)
    text = inspect.getdoc(convert) or ""
    parameters = inspect.signature(convert).parameters.values()
    found: dict[str, tuple[object, str]] = {}
    for parameter in parameters:
        if parameter.name != "path":
            said = re.search(rf"^    {parameter.name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
            line = " ".join(said[1].split()) if said else ""
            found[parameter.name] = (json.dumps(parameter.default), line)
    return found


def usage() -> str:
    """Return the help, with all kinds and their keys."""
    lines = []
    for kind in words("convert"):
        summary = (inspect.getdoc(find("convert", kind)) or "").partition("\n")[0]
        lines.append(f"  {kind:<17} {summary.replace('``', '')}")
        options = options_of(kind)
        if options:
            lines += [f"    {line}" for line in describe(options).splitlines()]
    return f"""usage: vqtrain convert kind=KIND path=PATH [out=DIR] [key=value ...]

Writes DIR/config.json and DIR/model.safetensors. Every tensor must have its place: one that is
missing, unknown or of another shape is named. Nothing in the checkpoint is run.

keys:
{describe(KEYS)}

kinds, and their own keys:
{chr(10).join(lines)}

options:
  --help   show this

{EXAMPLES}"""


def hashes(source: Path) -> dict[str, str]:
    """Return the sha256 of a file, or of the files in a directory, by their names."""
    files = sorted(file for file in source.iterdir() if file.is_file()) if source.is_dir() else []
    return {path.name: sha256(path) for path in files or [source]}


def conclude(
    tokenizer: Tokenizer, kind: str, source: Path, folder: Path, remarks: Mapping[str, object]
) -> None:
    """Say what was converted, and what can be done with it."""
    console = Console(highlight=False, soft_wrap=True)
    parts = tokenizer.specification
    parameters = sum(item.numel() for item in tokenizer.parameters())
    lines = {
        "converted": f"{source.name} ({kind}) to {folder}",
        "network": " ".join(f"{part}={parts[part]['kind']}" for part in parts),
        "parameters": f"{parameters:,}",
        "token ids": f"{tokenizer.vocab_size:,}, one for {tokenizer.downsampling} x "
        f"{tokenizer.downsampling} px",
        **{name: str(value) for name, value in remarks.items()},
    }
    for name, line in lines.items():
        console.print(f"{name:<12}{line}", markup=False)
    place = shlex.quote(str(folder))
    console.print("try next:")
    console.print(
        f"  vqtrain reconstruct tokenizer={place} images=demo image_size=256", markup=False
    )
    console.print(
        f"  vqtrain train init_from={place} {shlex.join(training_words(tokenizer))} "
        "data.train=FOLDER data.image_size=256",
        markup=False,
    )


def training_words(tokenizer: Tokenizer) -> list[str]:
    """Say to ``vqtrain train`` what a tokenizer is made of, where it is not the default."""
    parts = tokenizer.specification
    found = [f"{part}={parts[part]['kind']}" for part in parts]
    config = compose("train", read_command_line(found))
    channels = tokenizer.channels
    if channels != config["data"]["channels"]:
        found.append(f"data.channels={channels}")
    for part, specification in parts.items():
        arguments = specification["arguments"]
        assert isinstance(arguments, Mapping), "it was built of them"
        found += [
            f"{part}.{name}={json.dumps(value, separators=(',', ':'))}"
            for name, value in arguments.items()
            # They follow the data's channels.
            if name not in ("in_channels", "out_channels") and value != config[part][name]
        ]
    return found
