"""``vqtrain export``: a trained tokenizer in a form that others read, checked on pictures."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from vqtrain.app.keys import describe, read_keys, taken
from vqtrain.app.output import fill_whole, new_folder
from vqtrain.app.pictures import TOKENIZER_KEYS, PictureSettings, load
from vqtrain.build import bind
from vqtrain.data.images import prepare
from vqtrain.data.sources import open_images
from vqtrain.errors import BadSampleError, CheckpointError, ConfigError, DataError, VqtrainError
from vqtrain.formats.agreement import Agreement
from vqtrain.formats.find import about, find, words
from vqtrain.tokenizer.model import Tokenizer

KEYS: dict[str, tuple[object, str]] = {
    **TOKENIZER_KEYS,
    "format": ("safetensors", ", ".join(words("export"))),
    "out": ("exported", "folder to write; it must not exist"),
    "images": ("demo", "pictures of the check: demo, a folder, a glob, tars, a URL or a list"),
    "image_size": (None, "their largest side in px; null is that of the training"),
}
# A format takes those that its function has as arguments.
FORMAT_KEYS: dict[str, tuple[object, str]] = {
    "push": (None, "safetensors: repository on the Hugging Face hub, organization/name"),
    "precision": ("float32", "onnx: float32 or float16, of the networks"),
}

# Of the check; a third of them lose a share of their columns, a third of their rows.
PICTURES = 8
KEPT_SHARE = 0.75

USAGE = f"""usage: vqtrain export tokenizer=PATH format=FORMAT out=DIR [key=value ...]

Writes a tokenizer in another form, loads that again, and compares ids and pixels with PyTorch's on
{PICTURES} pictures of three sizes. What does not agree is not kept.

formats:
{chr(10).join(f"  {word:<13} {about('export', word)}" for word in words("export"))}

keys:
{describe(KEYS)}

keys of a format:
{describe(FORMAT_KEYS)}

options:
  --help   show this

examples:
  vqtrain export tokenizer=runs/demo/latest format=onnx out=demo-onnx precision=float16
  vqtrain export tokenizer=runs/demo/latest format=safetensors out=demo push=my-name/my-tokenizer
"""

# What to type next in Python, and which path goes in.
USES = {
    "safetensors": ("from vqtrain import Tokenizer", "Tokenizer.from_pretrained({path})", ""),
    "torch_export": ("import torch", "torch.export.load({path}).module()", "encoder.pt2"),
    "onnx": ("import onnxruntime", "onnxruntime.InferenceSession({path})", "encoder.onnx"),
    "diffusers": ("from diffusers import VQModel", "VQModel.from_pretrained({path})", ""),
}


def main(words: Sequence[str]) -> int:
    """Export, or show the help."""
    values = read_keys("vqtrain export", words, {**KEYS, **FORMAT_KEYS})
    if values is None:
        sys.stdout.write(USAGE)
        return 0
    options = options_of(values["format"], taken(values, FORMAT_KEYS))
    return bind(run, {**values, "options": options}, where="vqtrain export")


def options_of(word: str, given: Mapping[str, object]) -> dict[str, object]:
    """Keep the keys that a format takes.

    Raises:
        ConfigError: If there is no such format, or another key is given.
    """
    takes = inspect.signature(find("export", word)).parameters
    for key, value in given.items():
        if key not in takes and value != FORMAT_KEYS[key][0]:
            raise ConfigError(f"format={word} has no key {key}, which is for {FORMAT_KEYS[key][1]}")
    return {key: value for key, value in given.items() if key in takes}


def run(
    *,
    tokenizer: str | None,
    allow: list[str],
    format: str,  # noqa: A002 - the key's name
    out: str,
    images: str | list[str | dict[str, object]],
    image_size: int | None,
    options: Mapping[str, object],
) -> int:
    """Export, and say what came of it; the arguments are those of ``KEYS``."""
    loaded = load(tokenizer, allow, "vqtrain export")
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
    if tokenizer.codebook.scales:
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
