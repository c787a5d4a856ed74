"""``vqtrain export``: a trained tokenizer in a form that others read, checked on pictures."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from vqtrain.app.base import Command
from vqtrain.app.compose import CommandLine
from vqtrain.app.keys import describe_functions, hints_of
from vqtrain.app.output import fill_whole, new_folder
from vqtrain.app.pictures import PictureSettings
from vqtrain.build import unknown
from vqtrain.data.images import prepare
from vqtrain.data.sources import open_images
from vqtrain.errors import BadSampleError, CheckpointError, ConfigError, DataError, VqtrainError
from vqtrain.formats.agreement import Agreement
from vqtrain.formats.find import about, find, words
from vqtrain.ranges import check
from vqtrain.tokenizer.model import Tokenizer

# What every format is called with.
CONTEXT = ("tokenizer", "out", "images")

# Of the check; a third of them lose a share of their columns, a third of their rows.
PICTURES = 8
KEPT_SHARE = 0.75

# What to type next in Python, and which path goes in.
USES = {
    "safetensors": ("from vqtrain import Tokenizer", "Tokenizer.from_pretrained({path})", ""),
    "torch_export": ("import torch", "torch.export.load({path}).module()", "encoder.pt2"),
    "onnx": ("import onnxruntime", "onnxruntime.InferenceSession({path})", "encoder.onnx"),
    "diffusers": ("from diffusers import VQModel", "VQModel.from_pretrained({path})", ""),
}


@final
class Export(Command):
    """Exports a tokenizer."""

    def details(self, command_line: CommandLine) -> str:
        """Return the formats and their keys."""
        del command_line
        formats = {word: (about("export", word), find("export", word)) for word in words("export")}
        return f"formats, and their own keys:\n{describe_functions(formats, CONTEXT)}"

    def run(
        self,
        *,
        tokenizer: str,
        allow: list[str],
        format: str,  # noqa: A002 - the key's name
        out: str,
        images: str | list[str | dict[str, object]],
        image_size: int | None,
        **options: object,
    ) -> int:
        """Export, and say what came of it."""
        check_options(format, options)
        loaded = Tokenizer.from_pretrained(tokenizer, allow=allow)
        folder = new_folder(out)
        batches = pictures_of(loaded, images, image_size)
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"writing {format} and comparing it with PyTorch ...", markup=False)
        export = find("export", format)
        agreement = checked(partial(export, loaded, images=batches, **options), folder)
        console.print(f"{'written':<12}{folder}", markup=False)
        console.print(f"{'checked':<12}{agreement}", markup=False)
        first, second, file = USES[format]
        console.print("try next:")
        console.print(f"  {first}", markup=False)
        console.print(f"  {second.format(path=repr(str(folder / file)))}", markup=False)
        return 0


def check_options(word: str, given: Mapping[str, object]) -> None:
    """Refuse keys that a format does not have, and values that they cannot have.

    Raises:
        ConfigError: If there is one, or no such format.
    """
    hints = hints_of(find("export", word))
    keys = [key for key in hints if key not in CONTEXT]
    for key, value in given.items():
        if key not in keys:
            raise ConfigError(f"format={word}: {unknown('key', key, keys)}")
        check(key, value, hints[key])


def pictures_of(
    tokenizer: Tokenizer,
    images: str | list[str | dict[str, object]],
    image_size: int | None,
    count: int = PICTURES,
) -> list[Float[Tensor, "_ c _ _"]]:
    """Read pictures from all over: squares, and where the tokenizer takes them, other shapes.

    Raises:
        ConfigError: If the size does not fit the tokenizer.
        DataError: If there are no pictures, or one cannot be read.
    """
    settings = PictureSettings(
        image_size=image_size,
        crop="resize",
        batch_size=1,
        num_workers=0,
        device="cpu",
        precision="32-true",
    )
    preparation = settings.preparation(tokenizer)
    index = open_images(images, role="validation")
    chosen = np.unique(np.linspace(0, len(index) - 1, count).round().astype(int)).tolist()
    pixels = []
    for image_id in chosen:
        try:
            pixels.append(prepare(index.read(image_id), preparation, None))
        except BadSampleError as error:
            raise DataError(f"cannot read {index.key(image_id)}: {error}") from error
    squares = tokenizer.to_images(torch.stack(pixels))
    if tokenizer.codebook.token_grids:
        return [squares]
    f, side = tokenizer.downsampling, preparation.image_size
    least = 2 * f
    if side < least:
        raise ConfigError(f"image_size must be at least {least}, two tokens, got {side}")
    kept = max(least, int(KEPT_SHARE * side) // f * f)
    batches = [squares[::3], squares[1::3, :, :, :kept], squares[2::3, :, :kept]]
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
