"""``vqtrain reconstruct``: pictures beside what a tokenizer makes of them, and their ids."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, final

import torch
from jaxtyping import Float
from PIL.Image import Image as Picture
from rich.console import Console
from torch import Tensor

from vqtrain.app.base import Command
from vqtrain.app.output import ending_in_order, fill_whole, new_folder
from vqtrain.app.pictures import PictureSettings
from vqtrain.app.progress import shown_progress
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import decode_image, decode_whole_image
from vqtrain.data.sources.find import open_images
from vqtrain.data.sources.index import ImageIndex
from vqtrain.errors import BadSampleError, DataError
from vqtrain.evaluation.side_by_side import grids_of, ids_panel, side_by_side, to_panel
from vqtrain.metrics.image import psnr
from vqtrain.ops.pixels import to_pixels
from vqtrain.ranges import at_least, one_of
from vqtrain.tokenizer.checks import check_tile
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.preprocessing import whole_tokens
from vqtrain.training.settings import PRECISIONS

PSNR_FILE = "psnr.jsonl"
MAX_NAMED = 3


@final
class Reconstruct(Command):
    """Draws images next to their reconstructions."""

    def run(
        self,
        *,
        tokenizer: str,
        allow: list[str],
        images: str | list[str | dict[str, object]],
        out: str,
        limit: Annotated[int, at_least(1)] | None,
        image_size: int | None,
        crop: Annotated[str, one_of(*CROPS)],
        tile: int | None,
        device: str,
        precision: Annotated[str, one_of(*PRECISIONS)],
    ) -> int:
        """Reconstruct, and say what came of it."""
        settings = PictureSettings(
            image_size=image_size,
            crop=crop,
            batch_size=1,
            num_workers=0,
            device=device,
            precision=precision,
        )
        folder = new_folder(out)
        loaded = settings.placed(Tokenizer.from_pretrained(tokenizer, allow=allow))
        if tile is not None:
            check_tile(tile, loaded.downsampling)
        index = open_images(images, role="validation")
        pictures = read(index, loaded, settings, limit)
        console = Console(highlight=False, soft_wrap=True)
        total = min(len(index), limit or len(index))
        with ending_in_order(), shown_progress(console, "reading") as progress:
            rows, faults = fill_whole(
                folder,
                lambda beside: draw_all(
                    pictures,
                    beside,
                    draw=lambda images: reconstruct(loaded, images, settings, tile),
                    progress=lambda done: progress(str(folder), done, total),
                ),
            )
        conclude(console, folder, rows, faults)
        return 0


def draw_all(
    pictures: Iterable[tuple[str, Float[Tensor, "1 _ _ _"] | str]],
    folder: Path,
    *,
    draw: Callable[[Tensor], tuple[Picture, dict[str, Any]]],
    progress: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write a picture for each image, and their figures; return these, and what is wrong.

    Raises:
        DataError: If there is no image that can be used.
    """
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    names: set[str] = set()
    for done, (key, images_or_fault) in enumerate(pictures):
        progress(done)
        if isinstance(images_or_fault, str):
            faults.append(f"{key}: {images_or_fault}")
            continue
        name = f"{file_name(key, names)}.png"
        names.add(name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        made, figures = draw(images_or_fault)
        made.save(folder / name)
        rows.append({"key": key, "file": name, **figures})
    if not rows:
        raise DataError(f"none of {len(faults)} pictures can be used: {faults[0]}")
    (folder / PSNR_FILE).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return rows, faults


def read(
    index: ImageIndex, tokenizer: Tokenizer, settings: PictureSettings, limit: int | None
) -> Iterator[tuple[str, Float[Tensor, "1 c h w"] | str]]:
    """Bring pictures as images with their keys; a sentence in place of one that cannot be used."""
    size = settings.image_size or math.lcm(*tokenizer.downsampling)
    transform = replace(settings, image_size=size).transform(tokenizer)
    for image_id in range(min(len(index), limit or len(index))):
        key = index.key(image_id)
        try:
            encoded = index.read(image_id)
            if settings.image_size is not None:
                pixels = decode_image(encoded, transform, None)
            else:
                pixels = whole_tokens(
                    decode_whole_image(encoded, transform), tokenizer.downsampling
                )
            yield key, tokenizer.to_images(pixels[None])
        except BadSampleError as error:
            yield key, str(error)


@torch.inference_mode()
def reconstruct(
    tokenizer: Tokenizer,
    images: Float[Tensor, "1 c h w"],
    settings: PictureSettings,
    tile: int | None,
) -> tuple[Picture, dict[str, Any]]:
    """Draw one picture, its reconstruction and its ids; and return its PSNR and its size."""
    height, width = images.shape[2:]
    with settings.autocast():
        own = images.to(tokenizer.project_in.weight)
        quantized = tokenizer.quantize(tokenizer.latents(own, tile=tile))
        made = tokenizer.decode_latents(quantized.z_q, tile=tile)
    original, pixels = to_pixels(images), to_pixels(made.cpu())
    value = float(psnr(pixels, original))
    panels = [
        (to_panel(original), f"{width} x {height} px"),
        (to_panel(pixels), f"{value:.2f} dB"),
    ]
    if tokenizer.codebook.num_codebooks:
        grids = grids_of(quantized.token_ids[0], tokenizer.codebook.token_grids)
        shape = " x ".join(map(str, tokenizer.token_shape(height, width)))
        panels.append((ids_panel(grids, height, width), f"{shape} ids"))
    return side_by_side(panels), {"psnr": round(value, 4), "width": width, "height": height}


def file_name(key: str, taken: Collection[str]) -> str:
    """Turn the key of a sample into a path that stays inside a folder and is not taken."""
    parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..", ".")]
    name = "/".join(parts) or "picture"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in names if f"{free}.png" not in taken)


def conclude(
    console: Console, folder: Path, rows: Sequence[Mapping[str, Any]], faults: Sequence[str]
) -> None:
    """Say how well it went, and where the pictures are."""
    ordered = sorted(rows, key=lambda row: float(row["psnr"]))
    mean = math.fsum(row["psnr"] for row in rows) / len(rows)
    console.print(f"{'pictures':<12}{len(rows):,} in {folder}", markup=False)
    console.print(f"{'mean PSNR':<12}{mean:.2f} dB, all in {folder / PSNR_FILE}", markup=False)
    for word, row in (("worst", ordered[0]), ("best", ordered[-1])):
        console.print(f"{word:<12}{row['psnr']:.2f} dB, {row['file']}", markup=False)
    if faults:
        console.print(f"{'passed over':<12}{len(faults):,}", markup=False)
    for line in faults[:MAX_NAMED]:
        console.print(f"{'':<12}{line}", markup=False)
