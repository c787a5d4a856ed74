"""A run's tokenizer on some of its validation images: reconstructions, worst cases, ids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain.data.decoding.base import Transform
from vqtrain.data.loading.batches import ValidationBatches
from vqtrain.data.settings.kinds import bind_data
from vqtrain.data.sources.find import open_samples, training_and_validation
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import ConfigError, DataError
from vqtrain.evaluation.measure import describe_ids
from vqtrain.evaluation.results import CodebookUse
from vqtrain.evaluation.side_by_side import ids_panel, to_panel
from vqtrain.metrics.parts.codebook_usage import IdCounts
from vqtrain.metrics.psnr import PSNR
from vqtrain.ops.pixels import to_pixels
from vqtrain.reports.images import IDS, ORIGINAL, RECONSTRUCTION, RGB, evenly
from vqtrain.shapes import Pixels
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.results import RunResult

# Images per batch: a few large ones fill the memory.
BATCH_PIXELS, MOST_AT_ONCE = 2**20, 16


@final
@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image with its reconstruction.

    Attributes:
        key: Its name.
        psnr: Of the reconstruction, in dB.
        versions: By name: the tokenizer's input, the reconstruction and, if there are ids, a color
            for each id.
    """

    key: str
    psnr: float
    versions: Mapping[str, RGB]


@final
@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was measured.

    Attributes:
        values: PSNR of each image that could be read, in dB.
        total: Validation images.
        codebook: Usage of ids; None for a continuous codebook.
        some: Images, evenly chosen.
        worst: Images with the lowest PSNR, the worst first.
    """

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
            values |= dict(zip(places, PSNR()(decoded, original).tolist(), strict=True))
    if not values:
        raise DataError(f"none of {len(chosen)} images can be read")
    readable = list(values)
    some = [readable[place] for place in evenly(len(readable), shown)]
    worst = sorted(readable, key=lambda place: values[place])[:shown]
    drawn = {
        place: Shown(
            key=chosen.key(place),
            psnr=values[place],
            versions=versions_of(tokenizer, transform.decode(chosen.read(place), None)[None]),
        )
        for place in dict.fromkeys([*some, *worst])
    }
    use = describe_ids(used)
    return Examined(
        values=list(values.values()),
        total=len(index),
        codebook=None if use is None else CodebookUse.of(use),
        some=[drawn[place] for place in some],
        worst=[drawn[place] for place in worst],
    )


def reconstruct(
    tokenizer: Tokenizer, pixels: Pixels
) -> tuple[Pixels, Pixels, Int64[Tensor, "b k *tokens"]]:
    """Return images, their reconstructions and their ids, all on the CPU."""
    images = tokenizer.to_images(pixels.to(tokenizer.device), tokenizer.dtype)
    quantized = tokenizer.quantize(tokenizer.latents(images))
    decoded = tokenizer.decode_latents(quantized.z_q)
    return to_pixels(images.cpu()), to_pixels(decoded.cpu()), quantized.token_ids.cpu()


def versions_of(tokenizer: Tokenizer, pixels: Pixels) -> dict[str, RGB]:
    """Draw one image, its reconstruction and its ids."""
    original, decoded, token_ids = reconstruct(tokenizer, pixels)
    versions = {ORIGINAL: to_panel(original), RECONSTRUCTION: to_panel(decoded)}
    if tokenizer.codebook.num_codebooks:
        grids = tokenizer.codebook.id_grids(token_ids[0])
        versions[IDS] = ids_panel(grids, *original.shape[2:])
    return versions
