"""``vqtrain export``: a trained tokenizer in a form that others read, checked on pictures."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from vqtrain.app.base import Command
from vqtrain.app.parts.keys import build_kind
from vqtrain.app.parts.output import fill_whole, new_folder
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import BadSampleError, CheckpointError, ConfigError, DataError, VqtrainError
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.shapes import by
from vqtrain.tokenizer.model import Tokenizer

# Of the check; a third of them lose a share of their columns, a third of their rows.
PICTURES = 8
KEPT_SHARE = 0.75


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
        images: str | list[str | dict[str, object]],
        image_size: ImageSize | None,
        **options: object,
    ) -> int:
        """Export, and say what came of it."""
        exporter = build_kind("format", format, options, key="format")
        if not isinstance(exporter, Exporter):
            raise ConfigError(f"format={format} is no {Exporter.__module__}.Exporter")
        loaded = Tokenizer.from_pretrained(tokenizer, allow=allow)
        folder = new_folder(out)
        batches = pictures_of(loaded, images, image_size)
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"writing {format} and comparing it with PyTorch ...", markup=False)
        agreement = checked(partial(exporter.export, loaded, images=batches), folder)
        console.print(f"{'written':<12}{folder}", markup=False)
        console.print(f"{'checked':<12}{agreement}", markup=False)
        console.print("try next:")
        for line in exporter.example(folder).splitlines():
            console.print(f"  {line}", markup=False)
        return 0


def pictures_of(
    tokenizer: Tokenizer,
    images: str | list[str | dict[str, object]],
    image_size: ImageSize | None,
    count: int = PICTURES,
) -> list[Float[Tensor, "_ c _ _"]]:
    """Read pictures from all over: of the size, and where the tokenizer takes them, of others.

    Raises:
        ConfigError: If the size does not fit the tokenizer.
        DataError: If there are no pictures, or one cannot be read.
    """
    settings = SampleSettings(
        image_size=image_size,
        crop="resize",
        batch_size=1,
        num_workers=0,
        device="cpu",
        precision="32-true",
    )
    transform, only = settings.transform(tokenizer), traced_size(tokenizer)
    if only and transform.sample_size != only:
        raise ConfigError(
            f"image_size must be {by(only)}, the only size of this tokenizer's graphs, "
            f"got {by(transform.sample_size)}"
        )
    index = open_samples(images, role="validation")
    chosen = np.unique(np.linspace(0, len(index) - 1, count).round().astype(int)).tolist()
    pixels = []
    for image_id in chosen:
        try:
            pixels.append(transform.decode(index.read(image_id), None))
        except BadSampleError as error:
            raise DataError(f"cannot read {index.key(image_id)}: {error}") from error
    whole = tokenizer.to_images(torch.stack(pixels))
    if only:
        return [whole]
    f, size = math.lcm(*tokenizer.unit), transform.sample_size
    least = 2 * f
    if min(size) < least:
        raise ConfigError(f"image_size must be at least {least}, two tokens, got {min(size)}")
    rows, columns = (max(least, int(KEPT_SHARE * side) // f * f) for side in size)
    batches = [whole[::3], whole[1::3, :, :, :columns], whole[2::3, :, :rows]]
    return [batch for batch in batches if len(batch)]


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
