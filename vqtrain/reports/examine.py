"""A run's tokenizer on some of its validation samples: reconstructions, worst cases, ids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from vqtrain.data.decoding.base import Transform
from vqtrain.data.loading.batches import ValidationBatches
from vqtrain.data.media import IMAGE, VIDEO, Media
from vqtrain.data.settings.kinds import bind_data
from vqtrain.data.sources.find import open_samples, training_and_validation
from vqtrain.data.sources.index import SampleIndex
from vqtrain.drawing.files import to_files
from vqtrain.drawing.panels import flat_ids, panel_size, to_panel
from vqtrain.errors import ConfigError, DataError
from vqtrain.evaluation.measure import describe_ids
from vqtrain.evaluation.reconstructions import metric_of, values_of
from vqtrain.evaluation.results import CodebookUse
from vqtrain.evaluation.side_by_side import ids_panel
from vqtrain.metrics.base import SampleMetric
from vqtrain.metrics.parts.codebook_usage import IdCounts
from vqtrain.reports.images import IDS, ORIGINAL, RECONSTRUCTION, RGB, evenly
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.rate import rate_in
from vqtrain.training.results import RunResult

# Images per batch: a few large ones fill the memory.
BATCH_PIXELS, MOST_AT_ONCE = 2**20, 16


@final
@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sample with its reconstruction.

    Attributes:
        key: Its name.
        value: Of the reconstruction.
        versions: By name: the tokenizer's input, the reconstruction and, if there are ids, a color
            for each id.
        files: What plays of a clip or a sound, by suffix.
        stills: Of a clip, its first frame and that of the reconstruction.
    """

    key: str
    value: float
    versions: Mapping[str, RGB]
    files: Mapping[str, bytes]
    stills: tuple[RGB, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was measured.

    Attributes:
        media: What the samples are of.
        metric: What was measured.
        values: Of each sample that could be read.
        total: Validation samples.
        codebook: Usage of ids; None for a continuous codebook.
        some: Samples, evenly chosen.
        worst: Samples with the lowest values, the worst first.
    """

    media: Media
    metric: SampleMetric
    values: Sequence[float]
    total: int
    codebook: CodebookUse | None
    some: Sequence[Shown]
    worst: Sequence[Shown]


def open_validation(run: RunResult) -> tuple[SampleIndex, Transform]:
    """Find the images that a run was validated on, as its ``config.yaml`` names them.

    Raises:
        ConfigError: If the configuration does not name them.
        DataError: If they are missing or come from a pipe: a command in a file is not run.
    """
    group = run.setting("data", dict)
    if group is None or run.setting("trainer", dict) is None:
        raise ConfigError("config.yaml has no groups data and trainer")
    settings = bind_data(group)
    named = [settings.train, settings.val] if settings.val == "auto" else [settings.val]
    if "pipe:" in str(named):
        raise DataError("they come from a pipe, which is not run again")
    if settings.val == "auto":
        _, index = training_and_validation(settings.train, settings.val, settings.media)
    else:
        index = open_samples(settings.val, settings.media, role="validation")
    limit = run.setting("trainer.limit_val", int)
    if limit is not None and limit < len(index):
        index = index.select(np.arange(limit) * len(index) // limit)
    return index, settings.transform


@torch.inference_mode()
def examine(
    tokenizer: Tokenizer,
    index: SampleIndex,
    transform: Transform,
    *,
    limit: int,
    shown: int,
    device: torch.device,
) -> Examined:
    """Reconstruct some images of an index and compare, without communication between processes.

    Args:
        tokenizer: In eval mode.
        index: The validation images.
        transform: From images to the tokenizer's input.
        limit: Largest number of images, which are evenly chosen.
        shown: Number of evenly chosen images to show, and of the worst images.
        device: The device.

    Raises:
        DataError: If no image can be read.
        VqtrainError: If latents are not finite.
    """
    tokenizer = tokenizer.to(device)
    chosen = index.select(np.array(evenly(len(index), limit), dtype=np.int64))
    at_once = max(1, min(MOST_AT_ONCE, BATCH_PIXELS // math.prod(transform.sample_size)))
    metric = metric_of(transform.media.axes)
    batches = ValidationBatches(
        chosen, transform=transform, batch_size=at_once, rank=0, world_size=1
    )
    codebook = tokenizer.codebook
    used = IdCounts(num_codebooks=codebook.num_codebooks, size=codebook.size)
    values: dict[int, float] = {}
    for number in range(len(batches)):
        batch = batches[number]
        places = [number * at_once + place for place in batch.mask.nonzero()[:, 0].tolist()]
        if places:
            original, decoded, token_ids = reconstruct(tokenizer, batch.samples[batch.mask])
            used.add(token_ids)
            found = values_of(metric, decoded, original).tolist()
            values |= dict(zip(places, found, strict=True))
    if not values:
        raise DataError(f"none of {len(chosen)} {transform.media.noun}s can be read")
    readable = list(values)
    some = [readable[place] for place in evenly(len(readable), shown)]
    worst = sorted(readable, key=lambda place: values[place])[:shown]
    drawn = {
        place: show(tokenizer, chosen, place, transform, values[place])
        for place in dict.fromkeys([*some, *worst])
    }
    use = describe_ids(used)
    return Examined(
        media=transform.media,
        metric=metric,
        values=list(values.values()),
        total=len(index),
        codebook=None if use is None else CodebookUse.of(use),
        some=[drawn[place] for place in some],
        worst=[drawn[place] for place in worst],
    )


def reconstruct(
    tokenizer: Tokenizer, pixels: Shaped[Tensor, "b c *size"]
) -> tuple[Float[Tensor, "b c *size"], Float[Tensor, "b c *size"], Int64[Tensor, "b k *tokens"]]:
    """Return samples and their reconstructions in [-1, 1], and their ids, all on the CPU."""
    samples = tokenizer.to_images(pixels.to(tokenizer.device), tokenizer.dtype)
    quantized = tokenizer.quantize(tokenizer.latents(samples))
    decoded = tokenizer.decode_latents(quantized.z_q).clamp(-1, 1)
    return samples.cpu(), decoded.cpu(), quantized.token_ids.cpu()


def show(
    tokenizer: Tokenizer, index: SampleIndex, place: int, transform: Transform, value: float
) -> Shown:
    """Draw one sample, its reconstruction and its ids."""
    pixels = transform.decode(index.read(place), None)
    original, decoded, token_ids = reconstruct(tokenizer, pixels[None])
    rate, size = rate_in(tokenizer.training_summary), original.shape[2:]
    versions = {
        ORIGINAL: to_panel(original[0], rate),
        RECONSTRUCTION: to_panel(decoded[0], rate),
    }
    if tokenizer.codebook.num_codebooks:
        is_image = transform.media is IMAGE
        ids = token_ids[0]
        grids = tokenizer.codebook.id_grids(ids) if is_image else flat_ids(ids, len(size))
        versions[IDS] = ids_panel(grids, *panel_size(size))
    pair = (original[0], decoded[0])
    return Shown(
        key=index.key(place),
        value=value,
        versions=versions,
        files=to_files(*pair, rate),
        stills=tuple(to_panel(c[:, 0]) for c in pair) if transform.media is VIDEO else (),
    )
