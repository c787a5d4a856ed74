"""Trains one small network with every codebook, each at its best learning rate, and prints a table.

Every run has the same network, images and number of steps; only the codebook, the learning rate and
the seed differ. First all rates are tried with seed 0, and the one with the highest PSNR is kept;
then come the other seeds at this rate. A run's results are a line of a file. Interrupted, run
the same command again to continue. Run:
python scripts/compare_codebooks.py
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import torch
from lightning import Callback, Trainer

from vqtrain import build_training
from vqtrain.training.launch import quiet_libraries

NETWORK = [
    *("encoder=vqvae", "encoder.channels=32", "encoder.block_channels=16"),
    *("decoder=vqvae", "decoder.channels=32", "decoder.block_channels=16"),
    *("loss/reconstruction=l2", "data.image_size=32", "data.crop=native", "data.batch_size=32"),
    *("data.train=demo", "data.num_workers=0", "optim.warmup_steps=5%", "trainer.accelerator=cpu"),
]
# At a constant rate the average of the weights does what a decay of the rate would do.
RATES = ("1.0e-3", "3.0e-3", "1.0e-2", "3.0e-4")
SEEDS = (0, 1, 2)

# 8 x 8 positions of 10 bits each, but for kl, which has none. The slow ones come last.
CODEBOOKS = {
    "ema": ["codebook=ema"],
    "vq": ["codebook=vq"],
    "fsq": ["codebook=fsq"],
    "lfq": ["codebook=lfq"],
    "bsq": ["codebook=bsq"],
    "simvq": ["codebook=simvq"],
    "residual, 2 x 32": ["codebook=residual", "codebook.size=32", "codebook.num_codebooks=2"],
    "grouped, 2 x 32": [
        *("codebook=grouped", "codebook.size=32", "codebook.num_codebooks=2"),
        "codebook.inner.dim=16",
    ],
    "multiscale, 1 2 4 8": [
        *("codebook=multiscale", "codebook.scales=[1,2,4,8]", "codebook.num_convolutions=2"),
    ],
    "kl, 4 channels": ["codebook=kl"],
    "ibq": ["codebook=ibq"],
    "gumbel": ["codebook=gumbel"],
}

Result = Mapping[str, float]


class Results:
    """The results of runs, in a file with one line for each.

    Args:
        path: The file; it need not exist.
        steps: Steps of each run.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self._path, self._steps = path, steps
        lines = path.read_text().splitlines() if path.exists() else []
        self._found: dict[str, Result] = {line["run"]: line for line in map(json.loads, lines)}

    def get(self, name: str, rate: str, seed: int) -> Result | None:
        """Return the results of a run, if there are any."""
        return self._found.get(self._key(name, rate, seed))

    def complete(self, name: str, rate: str, seed: int) -> None:
        """Make a run, unless its results are there."""
        key = self._key(name, rate, seed)
        if key not in self._found:
            print(key, file=sys.stderr)
            words = [f"optim.lr={rate}", f"seed={seed}", f"trainer.max_steps={self._steps}"]
            self._found[key] = {"run": key, **train([*NETWORK, *CODEBOOKS[name], *words])}
            with self._path.open("a") as file:
                file.write(json.dumps(self._found[key]) + "\n")

    def best_rate(self, name: str) -> str | None:
        """Return the rate with the highest PSNR of the first seed, once all rates are tried."""
        found = {rate: self.get(name, rate, SEEDS[0]) for rate in RATES}
        psnr = {rate: one["val/psnr"] for rate, one in found.items() if one is not None}
        return max(psnr, key=lambda rate: psnr[rate]) if len(psnr) == len(RATES) else None

    def _key(self, name: str, rate: str, seed: int) -> str:
        return f"{name}; lr {rate}; seed {seed}; {self._steps} steps"


def make_trainer(
    steps: int, callbacks: Sequence[Callback] = (), *, validate: bool = True
) -> Trainer:
    """Make a trainer that validates after the last step, if at all, and writes nothing."""
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validate else 0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(words: list[str]) -> Result:
    """Train once; return the metrics of the validation after the last step."""
    with TemporaryDirectory() as folder:
        training = build_training(*words, folder=folder)
        steps = training.module.settings.max_steps
        trainer = make_trainer(steps)
        began = time.process_time()
        trainer.fit(training.module, training.data)
        seconds = (time.process_time() - began) / steps
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    kept = ("val/psnr", "val/ssim", "val/codebook/usage", "val/codebook/perplexity")
    return {name: metrics[name] for name in kept if name in metrics} | {"seconds": seconds}


def rows(results: Results) -> Iterator[str]:
    """Write the rows of the table, the best codebook first."""
    found: dict[str, tuple[str, list[Result]]] = {}
    for name in CODEBOOKS:
        rate = results.best_rate(name)
        if rate is not None:
            runs = [results.get(name, rate, seed) for seed in SEEDS]
            found[name] = rate, [run for run in runs if run is not None]
    for name, (rate, runs) in sorted(
        found.items(), key=lambda item: -mean(run["val/psnr"] for run in item[1][1])
    ):
        psnr = [run["val/psnr"] for run in runs]
        spread = f"{stdev(psnr):.2f}" if len(psnr) > 1 else "-"
        others = [
            f"{mean(run[key] for run in runs):.{digits}f}" if key in runs[0] else "-"
            for key, digits in (
                ("val/ssim", 3),
                ("val/codebook/usage", 2),
                ("val/codebook/perplexity", 0),
                ("seconds", 3),
            )
        ]
        cells = [name, f"{float(rate):g}", str(len(runs)), f"{mean(psnr):.2f}", spread, *others]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("compare_codebooks.jsonl"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same speed, whatever else the machine does
    quiet_libraries()
    results = Results(arguments.results, arguments.steps)
    if not arguments.table:
        for name in CODEBOOKS:
            for rate in RATES:
                results.complete(name, rate, SEEDS[0])
            best = results.best_rate(name)
            assert best is not None, "all rates are tried"
            for seed in SEEDS[1:]:
                results.complete(name, best, seed)
    print("| codebook | rate | runs | PSNR | spread | SSIM | usage | perplexity | s per step |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows(results):
        print(row)


if __name__ == "__main__":
    main()
