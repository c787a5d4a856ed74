"""How fast images come and how fast a device uses them up: what limits the speed of a run."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.app.build import Settings, build_module
from vqtrain.app.findings import Finding
from vqtrain.data.index import ImageIndex
from vqtrain.data.loaders import training_loader
from vqtrain.errors import DataError
from vqtrain.launchers.local import count_cores
from vqtrain.layers.lpips import LPIPS
from vqtrain.losses.perceptual import PerceptualLoss
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import LPIPS_NETWORKS

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
        settings: Its settings.
        module: Its networks.
        seed: Its seed.
        remark: In what its steps differ from those of the run, or nothing.
    """

    settings: Settings
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


def build_planned(config: Mapping[str, Any], settings: Settings) -> Planned:
    """Build the networks of a run; downloads nothing.

    Where the perceptual network's file is not here its weights are random, which takes as long.

    Raises:
        VqtrainError: If the run would be refused.
    """
    perceptual = config["loss"]["perceptual"]
    network, weight = perceptual["network"], perceptual["weight"]
    is_known = weight != 0 and network in LPIPS_NETWORKS and config["weights"][network] is None
    if not is_known or weights.cache_path(network).is_file():
        module = build_module(config, settings)
        return Planned(settings=settings, module=module, seed=config["seed"], remark="")
    loss = {**config["loss"], "perceptual": {**perceptual, "weight": 0}}
    module = build_module({**config, "loss": loss}, settings)
    lpips = LPIPS(network=network)
    for parameter in lpips.parameters():
        nn.init.normal_(parameter, std=0.02)
    module.objective.perceptual = PerceptualLoss(network=lpips, weight=weight)
    remark = f"; with random weights of {network}, whose file is not here"
    return Planned(settings=settings, module=module, seed=config["seed"], remark=remark)


def examine_speed(
    planned: Planned, index: ImageIndex, *, seconds: float, short_side: int
) -> Iterator[Finding]:
    """Measure a worker and the device, and tell how many workers keep the device busy.

    Args:
        planned: The run.
        index: Its images.
        seconds: About how long a worker takes for an image.
        short_side: Median short side of the pictures, in px.
    """
    try:
        loading, images = measure_loading(planned, index, seconds)
    except DataError as error:
        yield Finding(name="loading", found=str(error), remedy="mend the images first")
        return
    yield Finding(
        name="loading", found=f"{in_images(loading)} images/s for each of data.num_workers"
    )
    settings = planned.settings
    device = torch.device("cuda" if settings.trainer.uses_gpu else "cpu")
    batch_size = settings.data.batch_size
    try:
        rate = measure_device(planned, images, device)
    except torch.OutOfMemoryError:
        yield Finding(
            name="device",
            found=f"its memory does not hold a step of {batch_size} images",
            remedy="a smaller batch_size, with trainer.accumulate for steps of as many images",
        )
        return
    yield describe_device(planned, rate, device)
    yield describe_workers(
        planned, device_rate=rate.images_per_s, worker_rate=loading, short_side=short_side
    )


def measure_loading(
    planned: Planned, index: ImageIndex, seconds: float
) -> tuple[float, Shaped[Tensor, "b c h w"]]:
    """Watch one worker process of a run.

    Returns:
        Images per second, and some images.

    Raises:
        DataError: If a server does not answer, or if nothing can be read.
    """
    data = planned.settings.data
    batch_size = min(data.batch_size, max(1, int(LOADED_BATCH_S / seconds)))
    loader = training_loader(
        index,
        settings=replace(data, num_workers=1, batch_size=batch_size),
        seed=planned.seed,
        rank=0,
        world_size=1,
        ranks_per_node=1,
        start=0,
    )
    batches = iter(loader)
    images = next(batches).images  # the worker had to start for it
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < LOADING_S:
        images = next(batches).images
        count += len(images)
    return count / elapsed, images


def measure_device(
    planned: Planned, images: Shaped[Tensor, "b c h w"], device: torch.device
) -> Rate:
    """Make some steps as a run does, but for moving the weights.

    Args:
        planned: The run.
        images: Pixels as a worker brings them.
        device: What the run is on.
    """
    module, trainer = planned.module, planned.settings.trainer
    if trainer.precision == "64-true":
        module.double()
    module.to(device)

    def step(count: int) -> None:
        pixels = images[torch.arange(count) % len(images)].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=trainer.precision == "bf16-mixed"):
            batch = module.tokenizer.to_images(pixels, trainer.dtype).contiguous(
                memory_format=torch.channels_last
            )
            output = module.tokenizer(batch)
            last_weight = module.tokenizer.decoder.last_layer.weight
            assert isinstance(last_weight, Tensor), "the decoder's contract"
            module.objective(batch, output, last_weight, 0).total.backward()
        module.zero_grad()
        module.forget_step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    discriminator = module.objective.discriminator
    least = 1 if discriminator is None else discriminator.least_batch_size
    with torch.backends.cudnn.flags(benchmark=not trainer.deterministic):
        return measure_steps(step, batch_size=planned.settings.data.batch_size, least=least)


def measure_steps(step: Callable[[int], None], *, batch_size: int, least: int) -> Rate:
    """Time steps of the batch size, or of a smaller one where a step takes too long.

    Args:
        step: Makes a step of as many images.
        batch_size: Images of a step of the run.
        least: Images that a step needs.
    """

    def clock(count: int) -> float:
        began = time.perf_counter()
        step(count)
        return time.perf_counter() - began

    seconds = clock(least)
    if seconds > DEVICE_S:
        return Rate(images_per_s=least / seconds, batch_size=least)
    # Again: the first step of all, and the first one of a size, choose how they compute. And once
    # more where it seems slow: another program may have held it up.
    probes: list[float] = []
    count = least
    while count < batch_size and len(probes) < MAX_PROBES and sum(probes) < DEVICE_S:
        probes.append(clock(least))
        count = min(batch_size, max(least, int(DEVICE_S * least / min(probes))))
    times = [clock(count)]
    if times[0] < DEVICE_S:
        times = [clock(count)]
    while sum(times) < DEVICE_S and len(times) < MAX_STEPS:
        times.append(clock(count))
    return Rate(images_per_s=count / statistics.median(times), batch_size=count)


def describe_device(planned: Planned, rate: Rate, device: torch.device) -> Finding:
    """Tell how many images a device uses up, and how this was found."""
    settings, objective = planned.settings, planned.module.objective
    size, step_s = settings.data.image_size, rate.batch_size / rate.images_per_s
    where = "the GPU" if device.type == "cuda" else "the CPU"
    found = (
        f"{in_images(rate.images_per_s)} images/s on {where}: {step_s:.3g} s for {rate.batch_size} "
        f"images of {size} x {size} px, {settings.trainer.precision}{planned.remark}"
    )
    if rate.batch_size < settings.data.batch_size:
        found += f"; {settings.data.batch_size} at once would have taken too long to try"
    if objective.discriminator is not None and not objective.plays(0):
        found += f"; less from step {objective.adversarial.start_step} on, with the discriminator"
    if settings.trainer.compile:
        found += "; more when compiled"
    return Finding(name="device", found=found)


def describe_workers(
    planned: Planned, *, device_rate: float, worker_rate: float, short_side: int
) -> Finding:
    """Tell how many workers keep the devices of this machine busy.

    Args:
        planned: The run.
        device_rate: Images per second that a device uses up.
        worker_rate: Images per second that a worker brings.
        short_side: Median short side of the pictures, in px.
    """
    data, devices = planned.settings.data, planned.settings.trainer.devices
    needed = workers_needed(device_rate, worker_rate)
    cores = count_cores()
    busy = "the device" if devices == 1 else f"each of {devices} devices"
    found = f"data.num_workers={needed} keeps {busy} busy; it is {data.num_workers}"
    if needed * devices > cores:
        at_most = max(1, cores // devices)
        found += f"; this machine has {cores} {'core' if cores == 1 else 'cores'}"
        remedy = f"data.num_workers={at_most}, and more cores"
        smaller = PACKED_PER_CROPPED * data.image_size
        if short_side > smaller and data.crop != "native":  # which would show more of a picture
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
