"""The page on which a tokenizer of images runs: what it knows of the tokenizer, and its HTML."""

import base64
import io
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from vqtrain.data.media import IMAGE
from vqtrain.data.sources.demo import HELD_OUT, photographs
from vqtrain.drawing.html import STYLE, THEME, VIEWER, as_json, script_hash, source, template
from vqtrain.errors import require
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.shapes import by
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.rate import size_in
from vqtrain.version import __version__

HERE = Path(__file__).parent
PAGE, OWN_STYLE, OWN_SCRIPT = "web.html", "web.css", "web.js"
# Longest sides in px that a page offers, and how many tokens along it are still easy to click.
SIZES = (64, 128, 256, 512, 1024)
EASY_TOKENS = 32
# No side of a graph's grid may be shorter.
LEAST_TOKENS = 2


class Part(NamedTuple):
    """Where the page finds a file: next to it, or as text within it.

    Attributes:
        url: Next to the page; None for a file within it.
        text: Of the file, compressed, in base64.
    """

    url: str | None
    text: str = ""


def page_data(tokenizer: Tokenizer, parts: Mapping[str, Part]) -> dict[str, object]:
    """Collect what the scripts of the page need to know."""
    size = traced_size(tokenizer)
    kept = longest(tokenizer)
    example = Image.fromarray(example_pixels(tokenizer, size or (kept, kept)))
    png = io.BytesIO()
    example.save(png, "PNG")
    token_ids = tokenizer.encode(tokenizer.preprocess(example))
    reference = size or tuple(LEAST_TOKENS * side for side in tokenizer.unit)
    shape = tokenizer.token_shape(*reference)
    return {
        "channels": tokenizer.channels,
        "vocabSize": tokenizer.vocab_size,
        "unit": list(tokenizer.unit),
        "least": LEAST_TOKENS,
        "size": list(size) if size else None,
        "sizes": sorted({kept, *(side for side in SIZES if side >= max(tokenizer.unit) * 2)}),
        "longest": kept,
        # Sizes of samples, ids and levels belong together, and grow together.
        "reference": {
            "size": list(reference),
            "tokens": list(shape),
            "levels": levels_of(tokenizer, reference, shape),
        },
        "isSpatial": len(tokenizer.encoder.grid(reference)) == IMAGE.axes,
        "example": {
            "uri": f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}",
            "ids": token_ids.flatten().tolist(),
        },
        "parts": {name: part.url for name, part in parts.items()},
        "images": [],
        "blocks": [],
    }


def longest(tokenizer: Tokenizer) -> int:
    """Choose the longest side at first: of the training, or more while tokens are few."""
    trained = max(size_in(tokenizer.training_summary) or (0,))
    easy = [side for side in SIZES[:3] if side <= EASY_TOKENS * max(tokenizer.downsampling)]
    return max([trained, LEAST_TOKENS * max(tokenizer.unit), *easy])


def levels_of(
    tokenizer: Tokenizer, size: tuple[int, ...], shape: tuple[int, ...]
) -> list[list[int]]:
    """Return rows and columns of each grid of ids, in the order in which ids follow each other.

    Raises:
        ConfigError: If the ids of a grid do not follow each other.
    """
    codebook = tokenizer.codebook
    count = int(np.prod(shape))
    places = torch.arange(count).reshape(
        codebook.num_codebooks, *codebook.tokens(tokenizer.encoder.grid(size))
    )
    grids = sorted(codebook.id_grids(places), key=lambda grid: int(grid.flatten()[0]))
    follow = torch.cat([grid.flatten() for grid in grids])
    require(
        torch.equal(follow, torch.arange(count)),
        "format=web draws grids of ids one after another, which those of this codebook are not",
    )
    return [list(grid.shape) for grid in grids]


def example_pixels(tokenizer: Tokenizer, size: tuple[int, ...]) -> np.ndarray:
    """Read a photograph that the demo was not trained on, cropped and scaled to fit in a size."""
    with Image.open(photographs() / HELD_OUT[0]) as opened:
        picture = opened.convert("RGB" if tokenizer.channels == 3 else "L")
    height, width = size
    scale = max(Fraction(height, picture.height), Fraction(width, picture.width))
    wide, high = round(width / scale), round(height / scale)
    left, top = (picture.width - wide) // 2, (picture.height - high) // 2
    box = (left, top, left + wide, top + high)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, box))


def render(tokenizer: Tokenizer, parts: Mapping[str, Part], notice: str = "") -> str:
    """Write the page as HTML.

    Args:
        tokenizer: In eval mode, on the CPU.
        parts: Where its files are, by name.
        notice: A license that goes with files within the page.
    """
    script = "".join([source(THEME), source(VIEWER), source(OWN_SCRIPT, HERE)])
    summary = tokenizer.training_summary
    is_one_file = bool(notice)
    return template(PAGE, HERE).render(
        name=str(summary.get("name") or "An image tokenizer"),
        facts=facts_of(tokenizer),
        metrics=metrics_of(summary),
        is_fixed=traced_size(tokenizer) is not None,
        is_one_file=is_one_file,
        notice=Markup(notice),
        version=__version__,
        style=Markup(source(STYLE) + source(OWN_STYLE, HERE)),
        script=Markup(script),
        policy=Markup(policy(script_hash(script), is_one_file=is_one_file)),
        data=Markup(as_json(page_data(tokenizer, parts))),
        embedded={name: Markup(part.text) for name, part in parts.items() if part.url is None},
    )


def policy(script: str, *, is_one_file: bool) -> str:
    """Allow one script, the runtime and what lies next to the page, and no other requests."""
    runtime, files = ("blob:", "'none'") if is_one_file else ("'self'", "'self'")
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"style-src 'unsafe-inline'; script-src {runtime} 'wasm-unsafe-eval' {script}; "
        f"connect-src {files}; worker-src 'self' blob:"
    )


def facts_of(tokenizer: Tokenizer) -> dict[str, str]:
    """Say what the tokenizer is."""
    kinds = {name: str(part["kind"]) for name, part in tokenizer.specification.items()}
    summary, k = tokenizer.training_summary, tokenizer.codebook.num_codebooks
    trained, step = size_in(summary), summary.get("step")
    size = (
        traced_size(tokenizer) or trained or tuple(LEAST_TOKENS * side for side in tokenizer.unit)
    )
    return {
        "Encoder": kinds["encoder"],
        "Codebook": f"{kinds['codebook']}, {tokenizer.vocab_size:,} ids"
        + (f", {k} at each position" if k > 1 else ""),
        "Decoder": kinds["decoder"],
        "Tokens": f"{by(tokenizer.token_shape(*size))} for {by(size)} px",
        "Trained on": f"images of {by(trained)} px" if trained else "not known",
        "Steps": f"{step:,}" if isinstance(step, int) else "not known",
    }


def metrics_of(summary: Mapping[str, object]) -> dict[str, str]:
    """Return the metrics that were measured in training, as they are shown."""
    metrics = summary.get("metrics")
    found = metrics if isinstance(metrics, Mapping) else {}
    return {str(name): f"{value:.4g}" for name, value in found.items() if isinstance(value, float)}
