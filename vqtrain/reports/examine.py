"""A run's tokenizer on some images of its validation: reconstructions, worst cases, ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from vqtrain.build import bind
from vqtrain.data.batches import ValidationBatches
from vqtrain.data.images import Preparation, prepare
from vqtrain.data.index import ImageIndex
from vqtrain.data.settings import DataSettings
from vqtrain.data.sources import open_images, training_and_validation
from vqtrain.errors import ConfigError, DataError
from vqtrain.evaluation.measure import describe_ids
from vqtrain.evaluation.side_by_side import grids_of, ids_panel, to_panel
from vqtrain.metrics.codebook import IdCounts
from vqtrain.metrics.image import psnr
from vqtrain.ops.pixels import to_pixels
from vqtrain.reports.pictures import Picture, evenly
from vqtrain.tokenizer.model import Tokenizer

# Images at once: of large ones a few fill the memory.
BATCH_PIXELS, MOST_AT_ONCE = 2**20, 16


@final
@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image with what the tokenizer makes of it.

    Attributes:
        key: Its name.
        psnr: Of the reconstruction, in dB.
        original: As the tokenizer was given it.
        reconstruction: What came back.
        ids: A color for each id; None without ids.
    """

    key: str
    psnr: float
    original: Picture
    reconstruction: Picture
    ids: Picture | None


@final
@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was measured.

    Attributes:
        values: PSNR of each image that could be read, in dB.
        total: Images of the validation.
        codebook: How ids are used, as ``vqtrain evaluate`` says it; None of a continuous codebook.
        some: Images, evenly chosen.
        worst: Those with the lowest PSNR, the worst first.
    """

    values: Sequence[float]
    total: int
    codebook: Mapping[str, object] | None
    some: Sequence[Shown]
    worst: Sequence[Shown]


def open_validation(config: Mapping[str, Any]) -> tuple[ImageIndex, Preparation]:
    """Find the images that a run was validated on, as its ``config.yaml`` names them.

    Raises:
        ConfigError: If the configuration does not say.
        DataError: If they are not there, or come out of a pipe: commands in a file are not run.
    """
    group, trainer = config.get("data"), config.get("trainer")
    if not isinstance(group, Mapping) or not isinstance(trainer, Mapping):
        raise ConfigError("config.yaml has no groups data and trainer")
    settings = bind(DataSettings, dict(group), where="data")
    named = [settings.train, settings.val] if settings.val == "auto" else [settings.val]
    if "pipe:" in str(named):
        raise DataError("they come out of a pipe, which is not run again")
    if settings.val == "auto":
        _, index = training_and_validation(settings.train, settings.val)
    else:
        index = open_images(settings.val, role="validation")
    limit = trainer.get("limit_val")
    if isinstance(limit, int) and limit < len(index):
        index = index.select(np.arange(limit) * len(index) // limit)
    return index, settings.preparation


@torch.inference_mode()
def examine(
    tokenizer: Tokenizer,
    index: ImageIndex,
    preparation: Preparation,
    *,
    limit: int,
    shown: int,
    device: torch.device,
) -> Examined:
    """Reconstruct some images of an index and compare; nothing here waits for another process.

    Args:
        tokenizer: In eval mode.
        index: Images of the validation.
        preparation: How they are made for the tokenizer.
        limit: Images at most, evenly chosen.
        shown: Images to show of the even choice, and of the worst.
        device: Where to compute.

    Raises:
        DataError: If no image can be read.
        VqtrainError: If latents are not finite.
    """
    tokenizer = tokenizer.to(device)
    chosen = index.select(np.array(evenly(len(index), limit), dtype=np.int64))
    at_once = max(1, min(MOST_AT_ONCE, BATCH_PIXELS // preparation.image_size**2))
    batches = ValidationBatches(
        chosen, preparation=preparation, batch_size=at_once, rank=0, world_size=1
    )
    codebook = tokenizer.codebook
    used = IdCounts(num_codebooks=codebook.num_codebooks, size=codebook.size)
    values: dict[int, float] = {}
    for number in range(len(batches)):
        batch = batches[number]
        places = [number * at_once + place for place in batch.mask.nonzero()[:, 0].tolist()]
        if not places:
            continue
        pixels = batch.images[batch.mask].to(device)
        images = tokenizer.to_images(pixels, tokenizer.project_in.weight.dtype)
        quantized = tokenizer.quantize(tokenizer.latents(images))
        made = tokenizer.decode_latents(quantized.z_q)
        used.add(quantized.token_ids.cpu())
        measured = psnr(to_pixels(made.cpu()), to_pixels(images.cpu())).tolist()
        values |= dict(zip(places, measured, strict=True))
    if not values:
        raise DataError(f"none of {len(chosen)} images can be read")
    readable = list(values)
    some = [readable[place] for place in evenly(len(readable), shown)]
    worst = sorted(readable, key=lambda place: values[place])[:shown]
    pictures = {
        place: draw(tokenizer, chosen, place, preparation, values[place])
        for place in dict.fromkeys([*some, *worst])
    }
    return Examined(
        values=list(values.values()),
        total=len(index),
        codebook=describe_ids(used),
        some=[pictures[place] for place in some],
        worst=[pictures[place] for place in worst],
    )


def draw(
    tokenizer: Tokenizer, index: ImageIndex, place: int, preparation: Preparation, value: float
) -> Shown:
    """Reconstruct one image, and draw it."""
    pixels = prepare(index.read(place), preparation, None)[None]
    weight = tokenizer.project_in.weight
    images = tokenizer.to_images(pixels.to(weight.device), weight.dtype)
    quantized = tokenizer.quantize(tokenizer.latents(images))
    made = tokenizer.decode_latents(quantized.z_q)
    ids = None
    if tokenizer.codebook.num_codebooks:
        grids = grids_of(quantized.token_ids[0].cpu(), tokenizer.codebook.scales)
        ids = ids_panel(grids, images.shape[2], images.shape[3])
    return Shown(
        key=index.key(place),
        psnr=value,
        original=to_panel(to_pixels(images.cpu())),
        reconstruction=to_panel(to_pixels(made.cpu())),
        ids=ids,
    )
