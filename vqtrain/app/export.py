"""``vqtrain export``: a trained tokenizer in a form that others read, checked on samples."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.compared import DEMO, samples_of
from vqtrain.app.parts.keys import build_kind
from vqtrain.app.parts.output import fill_whole, new_folder
from vqtrain.app.parts.sources import Named, SampleSources, check_media
from vqtrain.data.settings.image import ImageSize
from vqtrain.errors import CheckpointError, ConfigError, VqtrainError
from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.ops.paths import expand
from vqtrain.ranges import at_least
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.results import commands_of, read_environment


@final
class Export(Command):
    """Exports a tokenizer."""

    def run(
        self,
        *,
        tokenizer: str,
        allow: list[str],
        format: str,  # noqa: A002 - the key's name
        out: str,
        sources: SampleSources,
        image_size: ImageSize | None,
        frames: Annotated[int, at_least(1)] | None,
        length: Annotated[int, at_least(1)] | None,
        **options: object,
    ) -> int:
        """Export, and say what came of it."""
        exporter = build_kind("format", format, options, key="format")
        if not isinstance(exporter, Exporter):
            raise ConfigError(f"format={format} is no {Exporter.__module__}.Exporter")
        loaded = Tokenizer.from_pretrained(tokenizer, allow=allow)
        exporter.check(loaded)
        commands = commands_of(read_environment(expand(tokenizer)))
        if commands:  # of a run directory, for the card
            loaded.training_summary["commands"] = commands
        source: Named = DEMO
        if sources.given:
            source, media = sources.named("vqtrain export tokenizer=PATH images=IMAGES")
            check_media(media, loaded, tokenizer)
        folder = new_folder(out)
        batches = samples_of(loaded, source, image_size=image_size, frames=frames, length=length)
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"writing {format} and comparing it with PyTorch ...", markup=False)
        agreement = checked(partial(exporter.export, loaded, images=batches), folder)
        console.print(f"{'written':<12}{folder}", markup=False)
        console.print(f"{'checked':<12}{agreement}", markup=False)
        console.print("try next:")
        for line in exporter.example(folder).splitlines():
            console.print(f"  {line}", markup=False)
        return 0


def checked(export: Callable[[Path], Agreement], out: Path) -> Agreement:
    """Export into a new folder; what does not agree is a failure, and leaves nothing.

    Raises:
        VqtrainError: If it cannot be written, or does not agree.
    """
    try:
        return fill_whole(out, export)
    except VqtrainError as error:
        error.exit_code = 2 if isinstance(error, ConfigError | CheckpointError) else 1
        raise
