"""Compares the memory that is estimated before a run with what its first steps really take.

Each setting trains in a process of its own on samples of random numbers, with a perceptual network
of random weights. What a process takes before the networks are built is not counted; on a GPU it is
the peak of torch's allocator. The last line is JSON.
Run: python scripts/measure_memory.py "experiment=vqgan_f16_16384 data.batch_size=2"
"""

import argparse
import json
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.planned import build_planned
from vqtrain.app.parts.settings import Settings
from vqtrain.training.launch import build_trainer, quiet_libraries
from vqtrain.training.memory import measure_step
from vqtrain.training.speed import time_batches

# Small ones, which a CPU can do.
SETTINGS = (
    "experiment=vqgan_f16_16384 data.image_size=128 data.batch_size=2",
    "experiment=vqgan_f16_16384 data.image_size=64 data.batch_size=4 trainer.precision=bf16-mixed",
    "experiment=vitvqgan_small data.image_size=128 data.batch_size=4",
)
STEPS = 2


def resident() -> float:
    """Return the largest memory that this process has taken, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def measure(words: list[str]) -> dict[str, float]:
    """Estimate the memory of a run, and make its first steps."""
    quiet_libraries()
    # The discriminator trains from the first step on.
    words = [*words, f"trainer.max_steps={STEPS}", "data.train=demo"]
    words += ["loss.adversarial.start_step=0", "optim.warmup_steps=0"]
    before = resident()
    config = compose("train", read_command_line(words))
    settings = Settings.of(config)
    module, data = build_planned(config, settings).module, settings.data
    sample_size = (data.channels, *data.sample_size)
    memory = measure_step(module, build_trainer(settings.trainer), sample_size)
    module.codebook_is_new = False  # whose start reads many batches, without gradients
    samples = torch.randint(256, (data.batch_size, *sample_size), dtype=torch.uint8)
    time_batches(module, samples, lambda seconds: len(seconds) >= STEPS)
    is_on_gpu = settings.trainer.uses_gpu
    measured = torch.cuda.max_memory_allocated() if is_on_gpu else resident() - before
    return {"estimated": memory.at(data.batch_size), "measured": measured}


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", default=SETTINGS, help="words of vqtrain train")
    arguments = parser.parse_args()
    print("| setting | estimated | measured | estimated / measured |\n|---|---|---|---|")
    rows = []
    for setting in arguments.settings:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            row = process.submit(measure, setting.split()).result()
        estimated, measured = row["estimated"], row["measured"]
        gigabytes = [f"{size / 1e9:.2f} GB" for size in (estimated, measured)]
        print(f"| `{setting}` | {' | '.join(gigabytes)} | {estimated / measured:.2f} |")
        rows.append({"setting": setting, **row})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
