"""Trains a tokenizer with each network for the same time, and prints a table and draws a picture.

Data, codebook, batch and tokens per image are the same; only encoder and decoder differ. Time is
that of one core, without validation: a few steps show what a step costs, and each network gets as
many steps as fit. All rates are tried for a tenth of the time, and the one with the highest PSNR is
kept for the whole. Interrupted, run the same command again to continue. Run:
python scripts/compare_networks.py photos/train photos/val
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import torch
from compare_codebooks import make_trainer
from lightning import Callback
from PIL import Image

from vqtrain import build_training
from vqtrain.training.launch import quiet_libraries

matplotlib.use("agg")
import matplotlib.pyplot as plt

RATES = ("3.0e-4", "1.0e-3", "3.0e-3")
COMMON = [
    *("codebook=ema", "codebook.size=1024", "loss/reconstruction=l2", "metrics.names=[psnr,ssim]"),
    *("data.image_size=64", "data.crop=random_resized", "data.batch_size=32", "data.num_workers=0"),
    *("optim.schedule=cosine", "optim.warmup_steps=5%", "trainer.accelerator=cpu", "seed=0"),
]


def both(kind: str, *words: str) -> list[str]:
    """Return the words of an encoder and a decoder of one kind with the same arguments."""
    sides = ("encoder", "decoder")
    return [f"{side}={kind}" for side in sides] + [f"{s}.{word}" for s in sides for word in words]


# Each has 8 x 8 latents and one to two million parameters; vqvae2 has another 4 x 4.
VQVAE = [
    *both("vqvae", "channels=128", "block_channels=64"),
    *("encoder.num_downsamplings=3", "decoder.num_upsamplings=3"),
]
LEVELS = ("channels=32", "multipliers=[1,1,2,2]", "num_blocks=1", "latent_channels=64")
TRANSFORMER = ("patch_size=8", "dim=128", "depth=4", "num_heads=4")
NETWORKS = {
    "vqvae": VQVAE,
    "cnn": both("cnn", *LEVELS, "attention_factors=[8]"),
    "maskgit": both("maskgit", *LEVELS),
    "magvit2": both("magvit2", *LEVELS),
    "vit": both("vit", *TRANSFORMER),
    "latent_query": both("latent_query", *TRANSFORMER, "num_tokens=64"),
    "vqvae2": [*VQVAE, "codebook=hierarchical", "codebook.channels=128"],
}


class Clock(Callback):
    """Adds up the processor time of training steps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Look at the clock."""
        self._began = time.process_time()

    def on_train_batch_end(self, *_: object) -> None:
        """Add what the batch took."""
        self.seconds += time.process_time() - self._began


def train(words: list[str], steps: int, folder: Path, *, validate: bool) -> Mapping[str, float]:
    """Train once; return seconds per step, parameters and the metrics of the last validation."""
    training = build_training(*words, f"trainer.max_steps={steps}", folder=folder)
    clock = Clock()
    trainer = make_trainer(steps, [clock], validate=validate)
    trainer.fit(training.module, training.data)
    parameters = sum(value.numel() for value in training.module.tokenizer.parameters())
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"seconds": clock.seconds / steps, "parameters": parameters, **metrics}


def compare(name: str, data: list[str], seconds: float, folder: Path) -> Mapping[str, float | str]:
    """Return the results of a network, from its file or by training."""
    file = folder / f"{name}.json"
    if file.exists():
        return json.loads(file.read_text())
    words = [*COMMON, *NETWORKS[name], *data]
    train([*words, f"optim.lr={RATES[0]}"], 3, folder, validate=False)  # the first steps are slow
    cost = train([*words, f"optim.lr={RATES[0]}"], 20, folder, validate=False)["seconds"]
    tried = {}
    for rate in RATES:
        steps = round(seconds / 10 / cost)
        tried[rate] = train([*words, f"optim.lr={rate}"], steps, folder, validate=True)["val/psnr"]
        print(f"{name}: rate {rate}, {steps} steps, {tried[rate]:.2f} dB", file=sys.stderr)
    best = max(tried, key=lambda rate: tried[rate])
    steps = round(seconds / cost)
    found = train([*words, f"optim.lr={best}"], steps, folder, validate=True)
    shutil.copy(folder / f"images/step_{steps:08}.png", folder / f"{name}.png")
    result = {**found, "steps": steps, "rate": best}
    file.write_text(json.dumps(result))
    print(f"{name}: {steps} steps, {found['val/psnr']:.2f} dB", file=sys.stderr)
    return result


def draw(names: list[str], folder: Path, to: str) -> None:
    """Write a picture: originals in the first row, below them the reconstructions of each."""
    rows: dict[str, Image.Image] = {}
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            half = image.height // 2
            rows.setdefault("original", image.crop((0, 0, image.width, half)).convert("RGB"))
            rows[name] = image.crop((0, half, image.width, image.height)).convert("RGB")
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, len(rows)), dpi=75)
    for axis, (name, row) in zip(axes, rows.items(), strict=True):
        axis.imshow(row, interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    longest = max(map(len, rows))
    figure.subplots_adjust(
        left=0.02 + 0.0092 * longest, right=0.995, top=0.995, bottom=0.005, hspace=0.03
    )
    figure.savefig(folder / to)
    plt.close(figure)


def main() -> None:
    """Train what is missing, print the table, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("compare_networks"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same speed, whatever else the machine does
    quiet_libraries()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = [f"data.train={arguments.train}", f"data.val={arguments.val}"]
    seconds = 60 * arguments.minutes
    found = {name: compare(name, data, seconds, arguments.out) for name in arguments.networks}
    print("| networks | parameters | steps | s per step | rate | PSNR | SSIM | usage |")
    print("|---|---|---|---|---|---|---|---|")
    for name, result in sorted(found.items(), key=lambda item: -item[1]["val/psnr"]):
        print(
            f"| `{name}` | {result['parameters'] / 1e6:.2f} M | {result['steps']:,} "
            f"| {result['seconds']:.3f} | {float(result['rate']):g} | {result['val/psnr']:.2f} "
            f"| {result['val/ssim']:.3f} | {result['val/codebook/usage']:.2f} |"
        )
    draw(list(found), arguments.out, "networks.png")


if __name__ == "__main__":
    main()
