"""How fast images come and how fast a device uses them up: what limits the speed of a run."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.data.loading.batches import TrainingBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.index import SampleIndex
from vqtrain.doctor.findings import Finding
from vqtrain.errors import DataError
from vqtrain.ops.cores import count_cores
from vqtrain.training.launch import build_trainer
from vqtrain.training.memory import look_at_memory
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import TrainerSettings
from vqtrain.training.speed import Until, time_batches

# Time that a worker is watched, and that one of its batches should take.
LOADING_S, LOADED_BATCH_S = 3.0, 0.25
# Time for a step, and for all that are measured; how many these are, and those tried before.
DEVICE_S, MAX_STEPS, MAX_PROBES = 5.0, 20, 3
# Some crops enlarge half of a picture's short side to the image size.
PACKED_PER_CROPPED = 2


@final
@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run that is not started.

    Attributes:
        data: Its settings of the data.
        trainer: Its settings of the trainer.
        module: Its networks.
        seed: Its seed.
        remark: In what its steps differ from those of the run, or nothing.
    """

    data: DataSettings
    trainer: TrainerSettings
    module: TokenizerTraining
    seed: int
    remark: str


@final
@dataclass(frozen=True, kw_only=True)
class Rate:
    """Images per second.

    Attributes:
        images_per_s: How many.
        batch_size: In batches of this many.
    """

    images_per_s: float
    batch_size: int


def examine_speed(
    planned: Planned, index: SampleIndex, *, seconds: float, short_side: int | None
) -> Iterator[Finding]:
    """Measure a worker, the memory and the device, and tell how many workers keep it busy.

    Args:
        planned: The run.
        index: Its images.
        seconds: About how long a worker takes for an image.
        short_side: Median short side of the pictures, in px.
    """
    try:
        loading, images = measure_loading(planned, index, seconds)
    except DataError as error:
        yield Finding(name="loading", found=str(error), remedy="repair the images first")
        return
    yield Finding(
        name="loading",
        found=f"{in_images(loading)} {planned.data.media.noun}s/s for each of data.num_workers",
    )
    trainer = build_trainer(replace(planned.trainer, devices=1, num_nodes=1))
    memory = look_at_memory(planned.module, trainer, planned.data)
    if memory is not None:
        yield Finding(name="memory", found=str(memory), remedy=memory.remedy)
    batch_size = planned.data.batch_size
    try:
        rate = measure_device(planned, images)
    except torch.OutOfMemoryError:
        yield Finding(
            name="device",
            found=f"its memory does not hold a step of {batch_size} images",
            remedy="a smaller batch_size, with trainer.accumulate for steps of as many images",
        )
        return
    yield describe_device(planned, rate)
    yield describe_workers(
        planned, device_rate=rate.images_per_s, worker_rate=loading, short_side=short_side
    )


def measure_loading(
    planned: Planned, index: SampleIndex, seconds: float
) -> tuple[float, Shaped[Tensor, "b c h w"]]:
    """Watch one worker process of a run.

    Returns:
        Images per second, and some images.

    Raises:
        DataError: If a server does not answer, or if nothing can be read.
    """
    data = planned.data
    batch_size = min(data.batch_size, max(1, int(LOADED_BATCH_S / seconds)))
    settings = replace(data, batch_size=batch_size)
    training = TrainingBatches(
        index,
        settings=settings,
        seed=planned.seed,
        rank=0,
        world_size=1,
        ranks_per_node=1,
        start=0,
    )
    batches = iter(Loader(training, num_workers=1))
    images = next(batches).samples  # the worker had to start for it
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < LOADING_S:
        images = next(batches).samples
        count += len(images)
    return count / elapsed, images


def measure_device(planned: Planned, images: Shaped[Tensor, "b c *size"]) -> Rate:
    """Make some training steps of a run, but in one process and not compiled.

    Args:
        planned: The run.
        images: Pixels as a worker brings them.
    """
    module, objective = planned.module, planned.module.objective
    module.settings = replace(planned.trainer, compile=False, devices=1, num_nodes=1)
    module.codebook_is_new = False  # its start from data takes as long as many steps

    def steps(count: int, until: Until) -> list[float]:
        return time_batches(module, images[torch.arange(count) % len(images)], until)

    discriminator = objective.discriminator
    least = 1 if discriminator is None else discriminator.least_batch_size
    return measure_steps(steps, batch_size=planned.data.batch_size, least=least)


def measure_steps(
    steps: Callable[[int, Until], Sequence[float]],
    *,
    batch_size: int,
    least: int,
) -> Rate:
    """Time steps of the batch size, or of a smaller one where a step takes too long.

    Args:
        steps: Makes steps of as many images until the seconds of each of them are enough.
        batch_size: Images of a step of the run.
        least: Images that a step needs.
    """

    def fitting(probes: Sequence[float]) -> int:
        if not probes:
            return least
        return min(batch_size, max(least, int(DEVICE_S * least / min(probes))))

    def is_probed(seconds: Sequence[float]) -> bool:
        # Again: the first step of all chooses how it computes. And once more where it seems slow:
        # another program may have held it up.
        probes = seconds[1:]
        return (
            seconds[0] > DEVICE_S
            or fitting(probes) >= batch_size
            or len(probes) >= MAX_PROBES
            or sum(probes) >= DEVICE_S
        )

    def are_enough(seconds: Sequence[float]) -> bool:
        times = warm(seconds)
        return sum(times) >= DEVICE_S or len(times) >= MAX_STEPS

    def warm(seconds: Sequence[float]) -> Sequence[float]:
        # The first step of a size is slower, but one that takes long is not made again.
        return seconds if seconds[0] >= DEVICE_S else seconds[1:]

    first, *probes = steps(least, is_probed)
    if first > DEVICE_S:
        return Rate(images_per_s=least / first, batch_size=least)
    count = fitting(probes)
    times = warm(steps(count, are_enough))
    return Rate(images_per_s=count / statistics.median(times), batch_size=count)


def describe_device(planned: Planned, rate: Rate) -> Finding:
    """Tell how many images a device uses up, and how this was found."""
    data, settings, objective = planned.data, planned.trainer, planned.module.objective
    step_s, noun = rate.batch_size / rate.images_per_s, data.media.noun
    where = "the GPU" if settings.uses_gpu else "the CPU"
    found = (
        f"{in_images(rate.images_per_s)} {noun}s/s on {where}: {step_s:.3g} s for "
        f"{rate.batch_size} {noun}s of {data.size_text}, {settings.precision}{planned.remark}"
    )
    if rate.batch_size < data.batch_size:
        found += f"; {data.batch_size} at once would have taken too long to try"
    if objective.discriminator is not None and not objective.adversarial_enabled(0):
        found += (
            f"; less from step {objective.adversarial.weight.start_step} on, with the discriminator"
        )
    if settings.compile:
        found += "; not compiled"
    return Finding(name="device", found=found)


def describe_workers(
    planned: Planned, *, device_rate: float, worker_rate: float, short_side: int | None
) -> Finding:
    """Tell how many workers keep the devices of this machine busy.

    Args:
        planned: The run.
        device_rate: Images per second that a device uses up.
        worker_rate: Images per second that a worker brings.
        short_side: Median short side of the pictures, in px; None if it is not known.
    """
    data, devices = planned.data, planned.trainer.devices
    needed = workers_needed(device_rate, worker_rate)
    cores = count_cores()
    busy = "the device" if devices == 1 else f"each of {devices} devices"
    found = f"data.num_workers={needed} keeps {busy} busy; it is {data.num_workers}"
    if needed * devices > cores:
        at_most = max(1, cores // devices)
        found += f"; this machine has {cores} {'core' if cores == 1 else 'cores'}"
        remedy = f"data.num_workers={at_most}, and more cores"
        # A native crop would show more of a smaller picture.
        if isinstance(data, ImageData) and short_side is not None and data.crop != "native":
            smaller = PACKED_PER_CROPPED * max(data.sample_size)
            if short_side > smaller:
                remedy = f"data.num_workers={at_most}, and smaller pictures, made once: "
                remedy += f"vqtrain pack images=IMAGES out=DIR image_size={smaller}"
    elif needed > data.num_workers:
        remedy = f"data.num_workers={needed}"
    else:
        return Finding(name="workers", found=found)
    return Finding(name="workers", found=found, remedy=remedy, is_slow=True)


def workers_needed(device_rate: float, worker_rate: float) -> int:
    """Return how many workers bring as many images as a device uses up.

    Example:
        >>> workers_needed(1000.0, 300.0)
        4
    """
    return math.ceil(device_rate / worker_rate)


def in_images(rate: float) -> str:
    """Write a rate for people."""
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
