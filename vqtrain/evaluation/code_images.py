"""What single ids look like: decoded alone, and the patches of images nearest to them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqtrain.data.decoding.base import Transform
from vqtrain.data.sources.index import SampleIndex
from vqtrain.drawing.panels import to_panel
from vqtrain.evaluation.codes import CodeStatistics
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.evaluation.side_by_side import MARGIN
from vqtrain.ops.pixels import to_pixels
from vqtrain.tokenizer.model import Tokenizer

FILE = "codebook.png"
TILE, FONT_SIZE, LINE = 48, 11, 16
TEXT_WIDTH = 0.6 * FONT_SIZE  # of a letter, at most
# Ids shown of a single grid, and of each of several.
SHOWN, LEAST_SHOWN, MOST_DRAWN = 16, 4, 32
# A patch has so many tokens along each axis, the one that it is of in the middle.
AROUND = 3
HEAT = 96
# From the lowest entropy to the highest.
COOL, WARM = np.array([24, 34, 84]), np.array([250, 204, 92])

RGB = UInt8[np.ndarray, "_ _ 3"]


@torch.inference_mode()
def draw_codes(
    codes: CodeStatistics,
    tokenizer: Tokenizer,
    index: SampleIndex,
    transform: Transform,
    settings: SampleSettings,
) -> Image.Image | None:
    """Draw the most frequent ids of each grid, and the entropy of ids at each position.

    Args:
        codes: What a pass has found, over all ranks.
        tokenizer: Of the ids.
        index: The images of the pass.
        transform: How they were read.
        settings: On what all is computed.

    Returns:
        The picture; None if there is nothing to show.
    """
    rows: list[Image.Image] = []
    if codes.is_spatial and codes.has_counts:
        title = "most frequent ids: decoded alone, and the patches nearest to them"
        rows += [heading(title), *code_rows(codes, tokenizer, index, transform, settings)]
    found = zip(codes.names, codes.position_entropies(), strict=False)  # none of many ids
    heats = [(name, each) for name, each in found if each.numel() > 1]
    if heats:
        rows += [heading("entropy of the ids at each position (bits)"), heat_row(heats)]
    return stacked(rows) if rows else None


def code_rows(
    codes: CodeStatistics,
    tokenizer: Tokenizer,
    index: SampleIndex,
    transform: Transform,
    settings: SampleSettings,
) -> list[Image.Image]:
    """Draw the most frequent ids of each grid, a column each."""
    counts, rows = codes.counts(), []
    most = SHOWN if len(codes.grids) == 1 else max(LEAST_SHOWN, MOST_DRAWN // len(codes.grids))

    def read(image_id: int) -> RGB:
        pixels = transform.decode(index.read(image_id), None)
        return to_panel(tokenizer.to_images(pixels[None])[0])

    for number, (name, grid) in enumerate(zip(codes.names, codes.grids, strict=True)):
        seen = int((counts[number] > 0).sum())
        chosen = counts[number].argsort(descending=True, stable=True)[: min(most, SHOWN, seen)]
        with settings.autocast():
            decoded = tokenizer.decode(alone(codes, counts, number, chosen), batch_size=8)
        columns = []
        for image, code in zip(to_pixels(decoded.cpu().float()), chosen.tolist(), strict=True):
            middle, _ = tile(to_panel(image), grid.shape, grid.shape[0] // 2, grid.shape[1] // 2)
            patches = [
                framed(*tile(read(patch.image_id), grid.shape, patch.row, patch.column))
                for patch in codes.patches(number, code)
            ]
            share = int(counts[number][code]) / int(counts[number].sum())
            columns.append(([middle, *patches], f"{code}", f"{100 * share:.1f} %"))
        rows.append(code_row(name, columns))
    return rows


def alone(
    codes: CodeStatistics,
    counts: Int64[Tensor, "grids size"],
    number: int,
    chosen: Int64[Tensor, " n"],
) -> Int64[Tensor, " n *tokens"]:
    """Make ids of images with one id in a whole grid, and the most frequent ones in all others."""
    flat = torch.zeros(len(chosen), math.prod(codes.token_shape), dtype=torch.int64)
    for each, grid in enumerate(codes.grids):
        ids = chosen[:, None] if each == number else counts[each].argmax()
        flat[:, grid.flatten().cpu()] = ids
    whole = flat.view(len(chosen), *codes.token_shape)
    return whole[:, 0] if codes.token_shape[0] == 1 else whole


def tile(
    image: RGB, grid: Sequence[int], row: int, column: int
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Cut a token and those around it out, scaled to a tile; return also where the token is."""
    borders, box = [], []
    for place, cells, size in zip((row, column), grid, image.shape[:2], strict=True):
        first = min(max(0, place - AROUND // 2), max(0, cells - AROUND))
        count = min(cells, AROUND)
        borders.append(slice(first * size // cells, -(-(first + count) * size // cells)))
        box.append([TILE * (place - first + end) // count for end in (0, 1)])
    cut = Image.fromarray(np.ascontiguousarray(image[borders[0], borders[1]]))
    how = Image.Resampling.NEAREST if cut.width <= TILE else Image.Resampling.BOX
    (top, bottom), (left, right) = box
    return cut.resize((TILE, TILE), how), (left, top, right - 1, bottom - 1)


def framed(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Draw a frame in a tile, unless it is the whole of it."""
    if box != (0, 0, TILE - 1, TILE - 1):
        dark = np.asarray(image).mean() < 128
        ImageDraw.Draw(image).rectangle(box, outline="white" if dark else "black")
    return image


def code_row(title: str, columns: Sequence[tuple[Sequence[Image.Image], str, str]]) -> Image.Image:
    """Draw columns of tiles, two lines of text below each, and a title above them."""
    height = max(len(tiles) for tiles, _, _ in columns) * (TILE + MARGIN) + 3 * LINE + 2 * MARGIN
    row, draw, font = blank(len(columns) * (TILE + MARGIN) + MARGIN, height)
    draw.text((MARGIN, 0), title, fill="black", font=font)
    for number, (tiles, *lines) in enumerate(columns):
        left = MARGIN + number * (TILE + MARGIN)
        for place, each in enumerate(tiles):
            # A gap between what is decoded and what was there.
            top = LINE + place * (TILE + MARGIN) + MARGIN * (place > 0)
            row.paste(each, (left, top))
        for place, text in enumerate(lines):
            draw.text((left, height - (2 - place) * LINE), text, fill="black", font=font)
    return row


def heat_row(heats: Sequence[tuple[str, Float64[Tensor, "_ _"]]]) -> Image.Image:
    """Draw the entropy of ids at each position: dark where it is low."""
    row, draw, font = blank(len(heats) * (HEAT + MARGIN) + MARGIN, HEAT + 2 * LINE + MARGIN)
    for number, (name, values) in enumerate(heats):
        entropies = values.numpy()
        low, high = entropies.min(), entropies.max()
        shares = ((entropies - low) / max(high - low, 1e-9))[..., None]
        colors = (COOL + shares * (WARM - COOL)).round().astype(np.uint8)
        left = MARGIN + number * (HEAT + MARGIN)
        size = (HEAT, HEAT if len(entropies) > 1 else LINE)
        row.paste(Image.fromarray(colors).resize(size, Image.Resampling.NEAREST), (left, 0))
        for place, text in enumerate((name, f"{low:.2f} to {high:.2f}")):
            top = HEAT + MARGIN + place * LINE
            draw.text((left, top), text, fill="black", font=font)
    return row


def heading(text: str) -> Image.Image:
    """Draw a line of text."""
    row, draw, font = blank(MARGIN + math.ceil(TEXT_WIDTH * len(text)), LINE)
    draw.text((MARGIN, 0), text, fill="black", font=font)
    return row


def blank(
    width: int, height: int
) -> tuple[Image.Image, ImageDraw.ImageDraw, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """Make a white picture, and what draws on it."""
    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)


def stacked(rows: Sequence[Image.Image]) -> Image.Image:
    """Put pictures below each other."""
    gap = 2 * MARGIN
    whole = Image.new(
        "RGB",
        (max(row.width for row in rows), sum(row.height + gap for row in rows)),
        "white",
    )
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + gap
    return whole
