"""Trains one small network with every codebook in turn, and prints a table of what came of it.

Every run has the same network, data, seed and number of steps; only the codebook differs. Its size
is about 1024: levels of fsq make 1000, groups have 32 ids each, residual depths 32. Interrupted,
run the same command again to continue. Run:
python scripts/compare_codebooks.py data.train='cifar10-train-{00000..00004}.tar' data.val=...
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import yaml

NETWORK = [
    *("encoder=vqvae", "encoder.channels=32", "encoder.block_channels=16"),
    *("decoder=vqvae", "decoder.channels=32", "decoder.block_channels=16"),
    *("loss/reconstruction=l2", "data.image_size=32", "data.crop=native", "data.batch_size=64"),
    *("optim.lr=1.0e-3", "optim.schedule=cosine", "optim.warmup_steps=5%", "trainer.log_every=50"),
    *("trainer.ema_decay=0.99", "trainer.validate_every=100%", "trainer.checkpoint_every=100%"),
]

# 8 x 8 positions of 10 bits each, but for kl, which has none.
CODEBOOKS = {
    "vq": ["codebook=vq"],
    "vq, normalized": ["codebook=vq", "codebook.l2_normalize=true", "codebook.dim=8"],
    "vq, rotation": ["codebook=vq", "codebook.gradient=rotation"],
    "ema": ["codebook=ema"],
    "simvq": ["codebook=simvq"],
    "ibq": ["codebook=ibq"],
    "gumbel": ["codebook=gumbel"],
    "fsq": ["codebook=fsq"],
    "lfq": ["codebook=lfq"],
    "bsq": ["codebook=bsq"],
    "residual, 2 x 32": ["codebook=residual", "codebook.size=32", "codebook.num_codebooks=2"],
    "grouped, 2 x 32": [
        *("codebook=grouped", "codebook.size=32", "codebook.num_codebooks=2"),
        "codebook.inner.dim=16",
    ],
    "multiscale, 1 2 4 8": [
        *("codebook=multiscale", "codebook.scales=[1,2,4,8]", "codebook.num_convolutions=2"),
    ],
    "kl, 4 channels": ["codebook=kl"],
}


def train(name: str, words: list[str], folder: Path) -> Path:
    """Train in a process of its own, unless that was done before, and return the run directory."""
    run = folder / re.sub(r"[^a-z0-9]+", "-", name)
    if not (run / "metrics.jsonl").exists() or last_validation(run) is None:
        resume = [f"resume={run}"] if (run / "checkpoints/last.ckpt").exists() else []
        command = [sys.executable, "-m", "vqtrain", "train", *words, f"run_dir={run}", *resume]
        print(f"training {name}", file=sys.stderr)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def last_validation(run: Path) -> dict[str, float] | None:
    """Return the metrics of the last step, if it was reached."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    is_done = bool(lines) and lines[-1]["step"] == config["trainer"]["max_steps"]
    return lines[-1] if is_done else None


def row(name: str, run: Path) -> str:
    """Write a row of the table."""
    found, config = last_validation(run), yaml.safe_load((run / "config.yaml").read_text())
    assert found is not None, "the run is finished"
    rates = [float(rate) for rate in re.findall(r"(\d+) images/s", (run / "log.txt").read_text())]
    seconds = config["data"]["batch_size"] / median(rates)
    tokenizer = json.loads((run / "tokenizer/config.json").read_text())["token_ids"]
    size = str(tokenizer["vocab_size"]) if tokenizer["num_codebooks"] else "-"
    use = [found.get(f"val/codebook/{key}") for key in ("usage", "perplexity")]
    usage, perplexity = (
        "-" if v is None else f"{v:.{d}f}" for v, d in zip(use, (2, 0), strict=True)
    )
    return (
        f"| {name} | {size} | {found['val/psnr']:.2f} | {found['val/ssim']:.3f} | {usage} | "
        f"{perplexity} | {seconds:.3f} |"
    )


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/compare_codebooks"))
    parser.add_argument("--max-steps", type=int, default=400)
    parser.add_argument("words", nargs="+", help="of vqtrain train, such as data.train=...")
    arguments = parser.parse_args()
    runs = {
        name: train(
            name,
            [*NETWORK, *codebook, f"trainer.max_steps={arguments.max_steps}", *arguments.words],
            arguments.folder,
        )
        for name, codebook in CODEBOOKS.items()
    }
    print("| codebook | ids | PSNR | SSIM | usage | perplexity | seconds a step |")
    print("|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        print(row(name, run))


if __name__ == "__main__":
    main()
