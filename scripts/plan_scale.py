"""Prints what an experiment costs on several numbers of devices: hours, traffic, images read.

The formulas are in docs/scale.md. The speed of a device and of a process that loads images are
measured ones, which you give; scripts/benchmark_data.py and the console of a run print them.
Run: python scripts/plan_scale.py experiment=vqgan_f16_16384 images_per_s=100
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.planned import build_planned
from vqtrain.app.parts.settings import Settings
from vqtrain.build import configs_folder
from vqtrain.codebooks.base import leaves, parts_of
from vqtrain.codebooks.parts.step_state import Counts, SampleBuffer
from vqtrain.data.loading.order import WINDOW, block_size_for
from vqtrain.training.module import TokenizerTraining

NUMBERS = {
    "images_per_s": None,  # of one device
    "worker_images_per_s": 450.0,  # of one process that loads images
    "devices": 8.0,  # of the run whose number of images is kept
    "devices_per_node": 8.0,
    "images": 1_281_167.0,
    "image_bytes": 110_000.0,
    "shard_bytes": 500e6,
}
COUNTS = (1, 8, 64, 512)
GBITS = (10, 100, 400)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of a step that are reduced or gathered over all ranks.

    Attributes:
        sharded: Gradients of encoder and decoder.
        whole: All other gradients.
        codebook: Statistics of the codebook, and the vectors for codes that restart, if all do.
    """

    sharded: int
    whole: int
    codebook: int

    @classmethod
    def of(cls, module: TokenizerTraining) -> "Traffic":
        """Count the bytes of a step of a run."""
        tokenizer = module.tokenizer
        trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
        networks = [*tokenizer.encoder.parameters(), *tokenizer.decoder.parameters()]
        sharded = sum(p.nbytes for p in networks if p.requires_grad)
        parts = [part for _, part in parts_of(tokenizer.codebook)]
        codebook = sum(part.total.nbytes for part in parts if isinstance(part, Counts))
        for leaf in leaves(tokenizer.codebook):
            if any(isinstance(part, SampleBuffer) for part in leaf.children()):
                codebook += 4 * leaf.size * leaf.dim
        return cls(sharded=sharded, whole=trained - sharded, codebook=codebook)

    def sent(self, devices: int, *, is_sharded: bool) -> float:
        """Count the bytes that each rank sends, by rings.

        An all-reduce sends 2 (n - 1) / n of its bytes; gathering the weights for the forward and
        for the backward pass, and scattering their gradients, 1 (n - 1) / n each.
        """
        factor = 3 if is_sharded else 2
        share = (devices - 1) / devices
        return share * (factor * self.sharded + 2 * (self.whole + self.codebook))


def seconds(sent: float, gbits: float) -> float:
    """Return the time to send some bytes."""
    return 8 * sent / (gbits * 1e9)


def plan(words: list[str], given: dict[str, float]) -> Iterator[str]:
    """Yield the lines of the tables of one experiment."""
    config, settings = settings_of(words)
    traffic = Traffic.of(build_planned(config, settings).module)
    rate, batch = given["images_per_s"], settings.data.batch_size * settings.trainer.accumulate
    images = settings.trainer.max_steps * batch * given["devices"]
    step_s = batch / rate
    yield (
        f"{' '.join(words)}: {settings.trainer.max_steps:,} steps, {images:,.0f} images, "
        f"{images / given['images']:,.1f} epochs, {step_s * 1e3:,.0f} ms a step"
    )
    yield (
        f"gradients of encoder and decoder: {traffic.sharded / 1e6:,.1f} MB, others: "
        f"{traffic.whole / 1e6:,.1f} MB; codebook: {traffic.codebook / 1e6:,.2f} MB"
    )
    links = " | ".join(f"{each} Gbit/s" for each in GBITS)
    yield f"\n| devices | hours | device hours | DDP: sent | {links} | FSDP: sent | {links} |"
    yield "|---" * (5 + 2 * len(GBITS)) + "|"
    for devices in COUNTS:
        hours = images / (rate * devices) / 3600
        cells = [f"{devices}", f"{hours:,.1f}", f"{hours * devices:,.0f}"]
        for is_sharded in (False, True):
            sent = traffic.sent(devices, is_sharded=is_sharded)
            cells.append(f"{sent / 1e6:,.0f} MB")
            times = [seconds(sent, each) for each in GBITS]
            cells += [f"{time * 1e3:,.0f} ms, {time / step_s:.0%}" for time in times]
        yield f"| {' | '.join(cells)} |"
    size = given["image_bytes"]
    shards = math.ceil(given["images"] * size / given["shard_bytes"])
    workers = math.ceil(rate / given["worker_images_per_s"])
    yield (
        f"\ndata: {given['images'] * size / 1e9:,.0f} GB in {shards:,} shards; "
        f"data.num_workers={workers}"
    )
    yield "\n| devices | nodes | images/s | images read a node | window in the cache of a node |"
    yield "|---|---|---|---|---|"
    window = 2 * WINDOW * block_size_for_mean(size) * size
    for devices in COUNTS:
        nodes = math.ceil(devices / given["devices_per_node"])
        read = rate * devices * size
        yield (
            f"| {devices} | {nodes} | {rate * devices:,.0f} | {read / 1e6:,.0f} MB/s | "
            f"{window / 1e9:,.1f} GB |"
        )


def settings_of(words: list[str]) -> tuple[dict[str, object], Settings]:
    """Compose a run, whose images need not be there."""
    config = compose("train", read_command_line([*words, "data.train=unused"]))
    return config, Settings.of(config)


def list_experiments(words: list[str], given: dict[str, float]) -> Iterator[str]:
    """Yield the lines of a table of all experiments, at the same images/s."""
    yield "| experiment | steps | images | device hours |"
    yield "|---|---|---|---|"
    for file in sorted((configs_folder() / "experiment").glob("*.yaml")):
        _, settings = settings_of([f"experiment={file.stem}", *words])
        trainer = settings.trainer
        batch = settings.data.batch_size * trainer.accumulate
        images = trainer.max_steps * batch * given["devices"]
        hours = images / given["images_per_s"] / 3600
        yield f"| {file.stem} | {trainer.max_steps:,} | {images:,.0f} | {hours:,.1f} |"


def block_size_for_mean(size: float) -> int:
    """Return the images of a block if all have the same size."""
    return block_size_for(np.array([size], dtype=np.int64))


def main() -> None:
    """Read the words, and print the tables."""
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    given = {key: float(words.pop(key, value or "nan")) for key, value in NUMBERS.items()}
    if math.isnan(given["images_per_s"]):
        sys.exit(f"give images_per_s=NUMBER; others are experiment, {', '.join(NUMBERS)}")
    own = [f"{key}={value}" for key, value in words.items()]
    for line in plan(own, given) if "experiment" in words else list_experiments(own, given):
        print(line)


if __name__ == "__main__":
    main()
