"""Images next to their reconstructions: read, drawn and written."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image as Picture
from torch import Tensor

from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError, DataError
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.evaluation.side_by_side import ids_panel, side_by_side, to_panel
from vqtrain.metrics.psnr import PSNR
from vqtrain.ops.pixels import to_pixels
from vqtrain.ops.precision import widened
from vqtrain.shapes import by
from vqtrain.tokenizer.any_size import AnySize, arrange, cropped, layout_of, restore
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.preprocessing import whole_tokens

# Images that fit as they are.
NO_CHANGE = AnySize()
PSNR_FILE = "psnr.jsonl"


def draw_all(
    images: Iterable[tuple[str, Float[Tensor, "1 _ _ _"] | str]],
    folder: Path,
    *,
    draw: Callable[[Tensor], tuple[Picture, dict[str, Any]]],
    progress: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write a picture for each image, and ``psnr.jsonl``; return its lines, and what is wrong.

    Raises:
        DataError: If there is no image that can be used.
    """
    lines: list[dict[str, Any]] = []
    faults: list[str] = []
    names: set[str] = set()
    for done, (key, images_or_fault) in enumerate(images):
        progress(done)
        if isinstance(images_or_fault, str):
            faults.append(f"{key}: {images_or_fault}")
            continue
        name = f"{file_name(key, names)}.png"
        names.add(name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        drawn, figures = draw(images_or_fault)
        drawn.save(folder / name)
        lines.append({"key": key, "file": name, **figures})
    progress(len(lines) + len(faults))
    if not lines:
        raise DataError(f"none of {len(faults)} images can be used: {faults[0]}")
    (folder / PSNR_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return lines, faults


def read_images(
    index: SampleIndex,
    tokenizer: Tokenizer,
    settings: SampleSettings,
    count: int,
    any_size: AnySize,
) -> Iterator[tuple[str, Float[Tensor, "1 c h w"] | str]]:
    """Bring the first images with their keys; for one that cannot be used, the reason."""
    size = settings.image_size or math.lcm(*tokenizer.unit)
    transform = replace(settings, image_size=size).transform(tokenizer)
    for image_id in range(count):
        key = index.key(image_id)
        try:
            encoded = index.read(image_id)
            if settings.image_size is not None:
                pixels = transform.decode(encoded, None)
            else:
                pixels = transform.decode_whole(encoded)
                if not any_size.keeps_whole:
                    pixels = whole_tokens(pixels, tokenizer.unit)
            yield key, tokenizer.to_images(pixels[None])
        except BadSampleError as error:
            yield key, str(error)


@torch.inference_mode()
def draw(
    tokenizer: Tokenizer,
    images: Float[Tensor, "1 c h w"],
    settings: SampleSettings,
    any_size: AnySize = NO_CHANGE,
    num_tokens: int | None = None,
) -> tuple[Picture, dict[str, Any]]:
    """Draw an image, its reconstruction and its ids; and return its PSNR and its size.

    ``num_tokens`` are those of a sequence that are decoded, if not all are.
    """
    layout = layout_of((images.shape[2], images.shape[3]), tokenizer, any_size)
    tile = None if layout.tiles else any_size.tile
    with settings.autocast():
        own = arrange(images.to(tokenizer.device, widened(tokenizer.dtype)), layout)
        quantized = tokenizer.quantize(tokenizer.latents(own, tile=tile)[..., :num_tokens])
        reconstruction = tokenizer.decode_latents(quantized.z_q, tile=tile)
    reconstruction = restore(reconstruction.clamp(-1, 1), layout)
    images = cropped(images, layout)
    height, width = images.shape[2:]
    original, pixels = to_pixels(images), to_pixels(reconstruction.cpu())
    value = float(PSNR()(pixels, original))
    panels = [
        (to_panel(original), f"{width} x {height} px"),
        (to_panel(pixels), f"{value:.2f} dB"),
    ]
    if tokenizer.codebook.num_codebooks:
        grids = tokenizer.codebook.id_grids(quantized.token_ids[0])
        shape = by(quantized.token_ids.shape[2 if tokenizer.codebook.num_codebooks == 1 else 1 :])
        caption = f"{shape} ids" if len(own) == 1 else f"{len(own)} x {shape} ids, the first"
        panels.append((ids_panel(grids, height, width), caption))
    return side_by_side(panels), {"psnr": round(value, 4), "width": width, "height": height}


def file_name(key: str, taken: Collection[str]) -> str:
    """Turn the key of a sample into a path that stays inside a folder and is not taken."""
    parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..", ".")]
    name = "/".join(parts) or "picture"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in names if f"{free}.png" not in taken)
