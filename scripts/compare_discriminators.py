"""Trains a small VQGAN with each discriminator, with and without augmentation, and without any.

Network, codebook, data, batch, steps, rates and the weight of the adversarial term are the same;
adversarial training takes the last half of the steps. Prints a table and draws a picture.
Interrupted, run the same command again to continue. Run:
python scripts/compare_discriminators.py photos/train photos/val
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from compare_codebooks import make_trainer
from compare_networks import draw
from lightning import Callback, LightningModule, Trainer
from sharpness import relative_sharpness

from vqtrain import build_training
from vqtrain.training.launch import quiet_libraries

COMMON = [
    *("experiment=demo", "data.image_size=64", "data.crop=random_resized", "data.num_workers=0"),
    *("loss.adversarial.weight=0.75", "loss.adversarial.start_step=50%"),
    *("optim.discriminator.lr=5.0e-4", "trainer.accelerator=cpu", "trainer.log_every=10", "seed=0"),
    "metrics.names=[psnr,ssim]",
]
# Each has 0.2 to 0.7 million parameters.
DISCRIMINATORS = {
    "patchgan": ["discriminator.channels=32", "discriminator.num_layers=3"],
    "multiscale": ["discriminator.channels=24", "discriminator.num_layers=2"],
    "blur": ["discriminator.channels=32", "discriminator.num_layers=3", "discriminator.max_grid=8"],
    "stylegan": ["discriminator.channels=16", "discriminator.max_channels=64"],
}
AUGMENT = "loss.discriminator.augment=1.0"
RUNS = {
    "none": ["discriminator=none"],
    **{
        f"{name}{suffix}": [f"discriminator={name}", *words, *more]
        for name, words in DISCRIMINATORS.items()
        for suffix, more in (("", []), (" + DiffAug", [AUGMENT]))
    },
}


class Trace(Callback):
    """Notes the time of steps, and what is logged of adversarial training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gaps: list[float] = []
        self.norms: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Look at the clock."""
        self._began = time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: object
    ) -> None:
        """Add what the batch took, and the newest line."""
        del arguments
        self.seconds.append(time.process_time() - self._began)
        logged = trainer.callback_metrics
        if "train/discriminator/logits_real" in logged and pl_module.step % 10 == 0:
            real, fake = (
                float(logged[f"train/discriminator/logits_{x}"]) for x in ("real", "fake")
            )
            self.gaps.append(real - fake)
            self.norms.append(float(logged["train/generator/gradient_norm"]))


def compare(name: str, data: list[str], steps: int, folder: Path) -> Mapping[str, float]:
    """Return the results of a run, from its file or by training."""
    file = folder / f"{name}.json"
    if file.exists():
        return json.loads(file.read_text())
    words = [*COMMON, *RUNS[name], *data, f"trainer.max_steps={steps}"]
    training = build_training(*words, folder=folder)
    trace = Trace()
    trainer = make_trainer(steps, [trace])
    trainer.fit(training.module, training.data)
    picture = folder / f"{name}.png"
    shutil.copy(folder / f"images/step_{steps:08}.png", picture)
    discriminator = training.module.objective.discriminator
    parameters = 0 if discriminator is None else sum(p.numel() for p in discriminator.parameters())
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    result = {
        "parameters": parameters,
        "seconds": float(np.median(trace.seconds[steps // 2 + 1 :])),
        "sharpness": relative_sharpness(picture),
        "gap": trace.gaps[-1] if trace.gaps else 0.0,
        "largest_gap": max(trace.gaps, default=0.0),
        "largest_norm": max(trace.norms, default=0.0),
        **metrics,
    }
    file.write_text(json.dumps(result))
    print(f"{name}: {result['val/psnr']:.2f} dB", file=sys.stderr)
    return result


def main() -> None:
    """Train what is missing, print the table, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("compare_discriminators"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same speed, whatever else the machine does
    quiet_libraries()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = [f"data.train={arguments.train}", f"data.val={arguments.val}"]
    found = {name: compare(name, data, arguments.steps, arguments.out) for name in RUNS}
    print(
        "| discriminator | parameters | s per step | PSNR | SSIM | sharpness "
        "| logits, real - fake: last, largest | largest gradient norm | skipped |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, result in found.items():
        print(
            f"| {name} | {result['parameters'] / 1e6:.2f} M | {result['seconds']:.2f} "
            f"| {result['val/psnr']:.2f} | {result['val/ssim']:.3f} | {result['sharpness']:.3f} "
            f"| {result['gap']:.2f}, {result['largest_gap']:.2f} | {result['largest_norm']:.2f} "
            f"| {result['train/skipped_steps']:.0f} |"
        )
    draw(list(found), arguments.out, "discriminators.png")


if __name__ == "__main__":
    main()
