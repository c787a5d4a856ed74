"""Samples next to their reconstructions: read, drawn and written."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, final

import torch
from jaxtyping import Float, Float64, Int64
from PIL.Image import Image as Picture
from torch import Tensor

from vqtrain.data.media import IMAGE, SOUND, VIDEO, media_of
from vqtrain.data.sources.index import SampleIndex
from vqtrain.drawing.files import to_files
from vqtrain.drawing.panels import flat_ids, panel_size, to_panel
from vqtrain.errors import BadSampleError, DataError
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.evaluation.side_by_side import ids_panel, side_by_side
from vqtrain.metrics.base import SampleMetric, is_by_frame
from vqtrain.metrics.parts.frames import frame_values
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.si_sdr import SISDR
from vqtrain.ops.pixels import to_pixels
from vqtrain.ops.precision import widened
from vqtrain.shapes import by
from vqtrain.tokenizer.any_size import AnySize, arrange, cropped, layout_of, restore
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.preprocessing import fitting, whole_tokens
from vqtrain.tokenizer.rate import rate_in

# Images that fit as they are.
NO_CHANGE = AnySize()


@final
@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A sample next to its reconstruction.

    Attributes:
        picture: Both, and the ids.
        figures: The value of ``metric_of``, and the size.
        files: What plays, by suffix; none of an image.
    """

    picture: Picture
    figures: dict[str, Any]
    files: dict[str, bytes]

    def save(self, folder: Path, name: str) -> None:
        """Write all files of one name."""
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        self.picture.save(folder / f"{name}.png")
        for suffix, content in self.files.items():
            (folder / f"{name}{suffix}").write_bytes(content)


def metric_of(axes: int) -> SampleMetric:
    """Return the metric that says how good single reconstructions are."""
    return SISDR() if media_of(axes) is SOUND else PSNR()


def values_of(
    metric: SampleMetric,
    reconstructions: Float[Tensor, "b c *size"],
    originals: Float[Tensor, "b c *size"],
) -> Float64[Tensor, " b"]:
    """Measure reconstructions of samples, both in [-1, 1], as evaluations do: clips by frame."""
    if not metric.takes_levels:
        return metric(reconstructions.float().clamp(-1, 1), originals.float())
    pair = to_pixels(reconstructions), to_pixels(originals)
    if is_by_frame(metric, originals.shape[2:]):
        return frame_values(metric, *pair).mean(1)
    return metric(*pair)


def draw_all(
    samples: Iterable[tuple[str, Float[Tensor, "1 c *size"] | str]],
    folder: Path,
    *,
    draw: Callable[[Tensor], Drawn],
    lines_file: str,
    progress: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write files for each sample, and a line for each; return the lines, and what is wrong.

    Raises:
        DataError: If there is no sample that can be used.
    """
    lines: list[dict[str, Any]] = []
    faults: list[str] = []
    names: set[str] = set()
    for done, (key, sample_or_fault) in enumerate(samples):
        progress(done)
        if isinstance(sample_or_fault, str):
            faults.append(f"{key}: {sample_or_fault}")
            continue
        name = file_name(key, names)
        names.add(f"{name}.png")
        drawn = draw(sample_or_fault)
        drawn.save(folder, name)
        lines.append({"key": key, "file": f"{name}.png", **drawn.figures})
    progress(len(lines) + len(faults))
    if not lines:
        raise DataError(f"none of {len(faults)} samples can be used: {faults[0]}")
    (folder / lines_file).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return lines, faults


def read_samples(
    index: SampleIndex,
    tokenizer: Tokenizer,
    settings: SampleSettings,
    count: int,
    any_size: AnySize,
) -> Iterator[tuple[str, Float[Tensor, "1 c *size"] | str]]:
    """Bring the first samples with their keys; for one that cannot be used, the reason.

    Images and sounds are whole where no size is set and the encoder takes any.
    """
    media = media_of(len(tokenizer.unit))
    is_whole = {
        IMAGE: settings.image_size is None,
        VIDEO: False,
        SOUND: settings.length is None and tokenizer.encoder.sample_size is None,
    }[media]
    if media is IMAGE and is_whole:
        settings = replace(settings, image_size=math.lcm(*tokenizer.unit))
    transform = settings.transform(tokenizer)
    for image_id in range(count):
        key = index.key(image_id)
        try:
            encoded = index.read(image_id)
            pixels = (
                transform.decode_whole(encoded) if is_whole else transform.decode(encoded, None)
            )
            if is_whole and media is not IMAGE:
                pixels = fitting(pixels, tokenizer.unit, tokenizer.token_shape)
            elif is_whole and not any_size.keeps_whole:
                pixels = whole_tokens(pixels, tokenizer.unit)
            yield key, tokenizer.to_images(pixels[None])
        except BadSampleError as error:
            yield key, str(error)


@torch.inference_mode()
def draw(
    tokenizer: Tokenizer,
    samples: Float[Tensor, "1 c *size"],
    settings: SampleSettings,
    any_size: AnySize = NO_CHANGE,
    num_tokens: int | None = None,
) -> Drawn:
    """Draw a sample, its reconstruction and its ids.

    ``num_tokens`` are those of a sequence that are decoded, if not all are.
    """
    if media_of(samples.ndim - 2) is not IMAGE:
        return _draw_in_time(tokenizer, samples, settings, num_tokens)
    layout = layout_of((samples.shape[2], samples.shape[3]), tokenizer, any_size)
    tile = None if layout.tiles else any_size.tile
    with settings.autocast():
        own = arrange(samples.to(tokenizer.device, widened(tokenizer.dtype)), layout)
        quantized = tokenizer.quantize(tokenizer.latents(own, tile=tile)[..., :num_tokens])
        reconstruction = tokenizer.decode_latents(quantized.z_q, tile=tile)
    reconstruction = restore(reconstruction.clamp(-1, 1), layout).cpu()
    original = cropped(samples, layout)
    height, width = original.shape[2:]
    value = float(values_of(PSNR(), reconstruction, original))
    panels = [
        (to_panel(original[0]), f"{width} x {height} px"),
        (to_panel(reconstruction[0]), f"{value:.2f} dB"),
    ]
    if tokenizer.codebook.num_codebooks:
        grids = tokenizer.codebook.id_grids(quantized.token_ids[0])
        shape = _shape_of(quantized.token_ids)
        caption = f"{shape} ids" if len(own) == 1 else f"{len(own)} x {shape} ids, the first"
        panels.append((ids_panel(grids, height, width), caption))
    figures = {"psnr": round(value, 4), "width": width, "height": height}
    return Drawn(picture=side_by_side(panels), figures=figures, files={})


def _draw_in_time(
    tokenizer: Tokenizer,
    samples: Float[Tensor, "1 c *size"],
    settings: SampleSettings,
    num_tokens: int | None,
) -> Drawn:
    """Draw a clip or a sound, with the panels below each other."""
    with settings.autocast():
        own = samples.to(tokenizer.device, widened(tokenizer.dtype))
        quantized = tokenizer.quantize(tokenizer.latents(own)[..., :num_tokens])
        decoded = tokenizer.decode_latents(quantized.z_q)
    reconstruction = decoded.clamp(-1, 1).float().cpu()
    size, rate = tuple(samples.shape[2:]), rate_in(tokenizer.training_summary)
    metric = metric_of(len(size))
    value = float(values_of(metric, reconstruction, samples))
    figures: dict[str, Any] = {metric.name: round(value, 4)}
    if len(size) == 1:
        caption = f"{size[0]:,} samples" + (f", {size[0] / rate:.2f} s" if rate else "")
        figures["length"] = size[0]
    else:
        frames, height, width = size
        caption = f"{frames} frames of {width} x {height} px"
        figures |= {"frames": frames, "width": width, "height": height}
    panels = [
        (to_panel(samples[0], rate), caption),
        (to_panel(reconstruction[0], rate), f"{value:.2f} {metric.unit}"),
    ]
    if tokenizer.codebook.num_codebooks:
        grids = flat_ids(quantized.token_ids[0], len(size))
        drawn = ids_panel(grids, *panel_size(size))
        panels.append((drawn, f"{_shape_of(quantized.token_ids)} ids"))
    return Drawn(
        picture=side_by_side(panels, is_stacked=True),
        figures=figures,
        files=to_files(samples[0], reconstruction[0], rate),
    )


def _shape_of(token_ids: Int64[Tensor, "b k *tokens"]) -> str:
    """Write the shape of the ids of a sample."""
    return by(token_ids.shape[2 if token_ids.shape[1] == 1 else 1 :])


def file_name(key: str, taken: Collection[str]) -> str:
    """Turn the key of a sample into a path that stays inside a folder and is not taken."""
    parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..", ".")]
    name = "/".join(parts) or "picture"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in names if f"{free}.png" not in taken)
