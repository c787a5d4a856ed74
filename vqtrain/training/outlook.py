"""What a run says before its first step: of its images, of its length, and of what looks wrong."""

import os
import platform
from collections.abc import Iterator

import lightning
import numpy as np
import torch
from torch import nn

from vqtrain.data.decoding.headers import look_at
from vqtrain.data.decoding.images import one_line
from vqtrain.data.media import IMAGE
from vqtrain.data.remote.urls import is_url
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.folders import describe_others
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError
from vqtrain.ops.precision import AUTOCAST, is_imitated
from vqtrain.optim.settings import OptimSettings
from vqtrain.shapes import ImageSize, by, sides, typed
from vqtrain.training.data_module import TrainingData
from vqtrain.training.settings import TrainerSettings
from vqtrain.version import __version__

# Images whose size is looked at, evenly over all.
MAX_LOOKED_AT = 16
# Below so many training images there is a hint.
FEW_IMAGES = 1_000


def describe_software() -> str:
    """Name the versions that a run depends on most."""
    return (
        f"vqtrain {__version__}, torch {torch.__version__}, lightning {lightning.__version__}, "
        f"python {platform.python_version()}"
    )


def describe_size(module: nn.Module) -> str:
    """Count parameters in a unit that fits, such as "58.9 thousand parameters"."""
    count = float(sum(parameter.numel() for parameter in module.parameters()))
    units = ("", " thousand", " million", " billion")
    # 999.95 would be rounded to 1000.0.
    unit = next((n for n in range(3) if count < 999.95 * 1000**n), 3)
    digits = 1 if unit else 0
    return f"{count / 1000**unit:.{digits}f}{units[unit]} parameters"


def describe_data(data: TrainingData) -> Iterator[str]:
    """Count the images of each side, and the files that were not taken."""
    settings, validation = data.settings, data.validation
    noun = settings.media.noun
    if isinstance(data.training, SampleIndex):
        training = f"{len(data.training)} training {noun}s"
    else:
        training = f"{len(data.training.commands)} training shards in sequence"
    yield f"data: {training}, {len(validation)} validation {noun}s, {settings.size_text}"
    if data.buckets is not None:
        counts = np.bincount(data.buckets.labels).tolist()
        found = [f"{by(each)}: {n:,}" for each, n in zip(data.buckets.sizes, counts, strict=True)]
        axes = "height x width" if settings.media is IMAGE else "frames x height x width"
        yield f"training {noun}s by {axes}: {', '.join(found)}"
    if isinstance(data.training, SampleIndex) and data.training.others:
        yield f"data.train: {describe_others(data.training.others, settings.media)}"
    # With data.val=auto they are the same files.
    if settings.val != "auto" and validation.others:
        yield f"data.val: {describe_others(validation.others, settings.media)}"


def describe_length(data: TrainingData, trainer: TrainerSettings) -> str:
    """Say how many steps, images and epochs a run is."""
    batch = samples_of_step(data, trainer)
    images = trainer.max_steps * batch
    length = f"length: {trainer.max_steps:,} steps of {batch:,} {data.settings.media.noun}s"
    if not isinstance(data.training, SampleIndex):
        return length
    epochs = images / float(data.training.weights.sum(dtype=np.float64))
    return f"{length}, {epochs:,.{0 if epochs >= 10 else 1}f} epochs"


def warnings_of(
    data: TrainingData, trainer: TrainerSettings, optim: OptimSettings
) -> Iterator[str]:
    """Name settings that do not fit the images or the machine."""
    dtype = AUTOCAST.get(trainer.precision)
    if dtype is not None and not trainer.uses_gpu and is_imitated(dtype):
        yield (
            f"this CPU has no instructions for {str(dtype).removeprefix('torch.')}, which is then "
            f"much slower than float32: leave out trainer.precision={trainer.precision}"
        )
    training, settings = data.training, data.settings
    if trainer.strategy == "fsdp" and not trainer.is_sharded:
        yield (
            "trainer.strategy=fsdp splits the networks over the processes of a run, and this run "
            "has one, which keeps them whole: raise trainer.devices"
        )
    if not isinstance(training, SampleIndex):
        return
    batch, count, noun = samples_of_step(data, trainer), len(training), settings.media.noun
    if batch > count:
        yield (
            f"a step takes {batch:,} {noun}s, more than the {count:,} there are, so {noun}s repeat "
            "within it: lower data.batch_size or trainer.accumulate"
        )
    enlarged = None
    if isinstance(settings, ImageData):
        enlarged = describe_enlarged(training, settings.image_size)
    if enlarged:
        yield enlarged
    shared = 0 if settings.val == "auto" else count_shared(training, data.validation)
    if shared:
        yield (
            f"{shared:,} of {len(data.validation):,} validation {noun}s are training {noun}s, too, "
            f"so the metrics do not tell how new {noun}s fare: data.val=auto holds some out"
        )
    if isinstance(settings, ImageData) and count < FEW_IMAGES and not optim.warmup_steps:
        yield (
            f"{count:,} training images are few, and optim.warmup_steps is 0: 5% is gentler; "
            "experiment=small_vqgan is made for a few hundred photographs"
        )


def samples_of_step(data: TrainingData, trainer: TrainerSettings) -> int:
    """Count the samples of one step, over all processes."""
    return data.settings.batch_size * trainer.accumulate * trainer.world_size


def describe_enlarged(index: SampleIndex, image_size: ImageSize) -> str | None:
    """Look at some local images, and say if there are any smaller than the crop."""
    spread = np.linspace(0, len(index) - 1, min(MAX_LOOKED_AT, len(index))).astype(int)
    sizes = []
    for image_id in spread.tolist():
        if is_url(index.path(image_id)):
            continue
        try:
            encoded = index.read(image_id)
            with one_line(encoded):
                sizes.append(look_at(encoded)[0])
        except BadSampleError:
            continue
    height, width = sides(image_size)
    small = [min(size) for size in sizes if size[0] < width or size[1] < height]
    if not small:
        return None
    return (
        f"{len(small)} of {len(sizes)} training images that were looked at are enlarged to "
        f"data.image_size={typed(image_size)}, the smallest from {min(small)} px: vqtrain doctor "
        "images=... proposes a size"
    )


def count_shared(training: SampleIndex, validation: SampleIndex) -> int:
    """Count the validation images that are training images: equal bytes of one file."""
    is_candidate = np.isin(training.sizes, validation.sizes)
    trained = set(_places(training, np.flatnonzero(is_candidate).tolist()))
    return sum(place in trained for place in _places(validation, list(range(len(validation)))))


def _places(index: SampleIndex, image_ids: list[int]) -> Iterator[tuple[str, int]]:
    """Yield the file of each image, however it is spelled, and where the image begins in it."""
    real: dict[int, str] = {}
    for image_id in image_ids:
        path_id, path = int(index.path_ids[image_id]), index.path(image_id)
        if path_id not in real:
            real[path_id] = path if is_url(path) else os.path.realpath(path)
        yield real[path_id], int(index.offsets[image_id])
