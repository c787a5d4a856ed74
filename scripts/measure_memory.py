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
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from lightning import LightningDataModule

from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings
from vqtrain.data.loading.batches import Batch
from vqtrain.layers.lpips import LPIPS
from vqtrain.training.launch import build_trainer, quiet_libraries
from vqtrain.training.memory import measure_step

# Small ones, which a CPU can do.
SETTINGS = (
    "experiment=vqgan_f16_16384 data.image_size=128 data.batch_size=2",
    "experiment=vqgan_f16_16384 data.image_size=64 data.batch_size=4 trainer.precision=bf16-mixed",
    "experiment=vitvqgan_small data.image_size=128 data.batch_size=4",
)
STEPS = 2


class RandomSamples(LightningDataModule):
    """Batches of random numbers.

    Args:
        shape: Of a batch.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def first_batches(self) -> Iterator[Batch]:
        """Yield batches for ever."""
        while True:
            samples = torch.randint(256, self.shape, dtype=torch.uint8)
            count = self.shape[0]
            mask = torch.ones(count, dtype=torch.bool)
            yield Batch(samples=samples, mask=mask, keys=[""] * count)

    train_dataloader = first_batches


def resident() -> float:
    """Return the largest memory that this process has taken, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def measure(words: list[str], folder: str) -> dict[str, float]:
    """Estimate the memory of a run, and make its first steps."""
    quiet_libraries()
    file = Path(folder) / "vgg.pth"
    if not file.exists():
        features = LPIPS(network="vgg").features.named_parameters()
        torch.save({f"features.{name}": p.normal_(0.0, 0.02) for name, p in features}, file)
    # The discriminator trains from the first step on.
    words = [*words, f"weights.vgg={file}", f"trainer.max_steps={STEPS}"]
    words += ["data.train=demo", "loss.adversarial.start_step=0", "optim.warmup_steps=0"]
    before = resident()
    config = compose("train", read_command_line(words))
    settings = Settings.of(config)
    module, trainer = build_module(config, settings), build_trainer(settings.trainer)
    size = settings.data.sample_size
    shape = (settings.data.batch_size, settings.data.channels, *size)
    memory = measure_step(module, trainer, shape[1:])
    module.codebook_is_new = False  # whose start reads many batches, without gradients
    trainer.fit(module, RandomSamples(shape))
    is_on_gpu = settings.trainer.uses_gpu
    measured = torch.cuda.max_memory_allocated() if is_on_gpu else resident() - before
    return {"estimated": memory.at(settings.data.batch_size), "measured": measured}


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", default=SETTINGS, help="words of vqtrain train")
    arguments = parser.parse_args()
    print("| setting | estimated | measured | estimated / measured |\n|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for setting in arguments.settings:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                row = process.submit(measure, setting.split(), folder).result()
            estimated, measured = row["estimated"], row["measured"]
            gigabytes = [f"{size / 1e9:.2f} GB" for size in (estimated, measured)]
            print(f"| `{setting}` | {' | '.join(gigabytes)} | {estimated / measured:.2f} |")
            rows.append({"setting": setting, **row})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
