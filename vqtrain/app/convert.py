"""``vqtrain convert``: somebody else's checkpoint becomes a tokenizer directory."""

import math
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.keys import build_kind
from vqtrain.app.parts.output import fill_whole, new_folder
from vqtrain.errors import ConfigError
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.ops.paths import expand
from vqtrain.shapes import by
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.weights import sha256


@final
class Convert(Command):
    """Converts a checkpoint."""

    def run(self, *, kind: str, path: str, out: str, **options: object) -> int:
        """Convert, and say what came of it."""
        source, folder = expand(path), new_folder(out)
        converter = build_kind("format", kind, options, key="kind")
        if not isinstance(converter, Converter):
            raise ConfigError(f"kind={kind} is no {Converter.__module__}.Converter")
        if not source.exists():
            raise ConfigError(f"path={path}: there is no such file or directory")
        tokenizer = converter.convert(source)
        remarks = dict(tokenizer.training_summary)
        tokenizer.training_summary["converted_from"] = {"kind": kind, "files": hashes(source)}
        fill_whole(folder, tokenizer.save_pretrained)
        conclude(tokenizer, kind, source, folder, remarks)
        return 0


def hashes(source: Path) -> dict[str, str]:
    """Return the sha256 of a file, or of the files in a directory, by their names."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return {file.name: sha256(file) for file in files if file.is_file()}


def tokens_of(tokenizer: Tokenizer) -> str:
    """Say how many ids there are for how many pixels: the fewest that there can be."""
    if tokenizer.codebook.num_codebooks == 0:
        return f"none: {tokenizer.codebook.dim} channels for {by(tokenizer.downsampling)} px"
    ids = f"{tokenizer.vocab_size:,}"
    # The second is of codebooks and encoders that take samples of one size alone.
    for size in filter(None, (tokenizer.unit, traced_size(tokenizer))):
        with suppress(ConfigError):
            count = math.prod(tokenizer.token_shape(*size))
            return f"{ids}, {'one' if count == 1 else count} for {by(size)} px"
    return f"{ids}, for samples of one size"


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
        "token ids": tokens_of(tokenizer),
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
        f"  vqtrain train init_from={place} data.train=FOLDER data.image_size=256",
        markup=False,
    )
