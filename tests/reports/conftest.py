"""Folders to make pages of, as commands leave them, and a browser that looks at the pages."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import in_context, split_kind
from vqtrain.evaluation.cost import Cost
from vqtrain.evaluation.leaderboard import FAILED, MEASURED, Board, Network, Row, ranked
from vqtrain.evaluation.results import BaselineResult, CodebookUse, TokenizerResult
from vqtrain.evaluation.side_by_side import side_by_side
from vqtrain.generation.results import (
    CurvePoint,
    EntropyResult,
    PerturbPoint,
    PerturbResult,
    ProbeReport,
    SamplesResult,
    TokenizerProbe,
    TransformerResult,
    write_probe,
)

KINDS = ["vq", "ema", "simvq", "fsq", "lfq", "bsq", "residual"]
FSQ = ["codebook=fsq", "codebook.size=16"]


def write_strip(file: Path, *, side: int, count: int, seed: int, noise: float) -> None:
    """Write originals above reconstructions, as a validation does."""
    random = np.random.default_rng(seed)
    corners = np.random.default_rng(0).integers(0, 256, (count, 3, 3, 3), dtype=np.uint8)
    originals = [
        np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC))
        for each in corners
    ]
    made = [
        np.clip(each + random.normal(0, noise, each.shape), 0, 255).astype(np.uint8)
        for each in originals
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.concatenate(row, 1) for row in (originals, made)]
    Image.fromarray(np.concatenate(rows, 0)).save(file)


def metrics_lines(steps: int, every: int) -> Iterator[str]:
    """Lines as a run of a VQGAN writes them, with a loss that is no number at one step."""
    for step in range(every, steps + 1, every):
        share = step / steps
        wave = math.sin(step) * 0.02
        line: dict[str, float | None] = {
            "train/generator/total": 0.5 * math.exp(-3 * share) + 0.05 + wave * 0.1,
            "train/generator/reconstruction": 0.4 * math.exp(-3 * share) + 0.04,
            "train/generator/codebook": 0.02 * math.exp(-2 * share),
            "train/generator/gradient_norm": 0.5 + wave,
            "train/generator/learning_rate": 1e-3 * (1 - share),
            "train/codebook/usage": min(1.0, 0.3 + share),
            "train/codebook/perplexity": 16 * (0.2 + 0.7 * share),
            "train/codebook/top1_share": 0.4 - 0.3 * share,
            "train/skipped_steps": 0.0,
        }
        if share > 0.5:
            line |= {
                "train/discriminator/total": 1 - share + wave,
                "train/discriminator/logits_real": share,
                "train/discriminator/logits_fake": -share,
                "train/adversarial/weight": 0.01 * share,
            }
        if step == every * 5:
            line["train/generator/total"] = None
        if step % (every * 5) == 0:
            line |= {
                "val/psnr": 15 + 8 * share + wave,
                "val/ssim": 0.3 + 0.4 * share,
                "val/rfid@16": 80 - 40 * share,
                "val/codebook/usage": min(1.0, 0.2 + share),
                "val/codebook/perplexity": 15 * (0.2 + 0.7 * share),
            }
        yield json.dumps({"step": step, **line}) + "\n"


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, tiny: list[str]) -> MakeRun:
    """Write a run directory as ``vqtrain train`` does, without training."""

    def make(name: str, *words: str, steps: int = 40, every: int = 1) -> Path:
        run = tmp_path / name
        run.mkdir()
        base = [word for word in tiny if not word.startswith("codebook.")]
        book = [] if any(word.startswith("codebook=") for word in words) else FSQ
        typed = [*base, f"trainer.max_steps={steps}", *book, *words]
        config = compose("train", read_command_line(typed))
        config["name"] = f"{name} <b>&"
        (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (run / "metrics.jsonl").write_text("".join(metrics_lines(steps, every)))
        training = {"step": steps, "image_size": config["data"]["image_size"]}
        channels = config["data"]["channels"]
        context = {"in_channels": channels, "out_channels": channels}
        parts = {
            part: in_context(part, split_kind(config[part]), context)
            for part in ("encoder", "codebook", "decoder")
        }
        tokenizer = Tokenizer(**parts, channels=channels, training=training)
        tokenizer.save_pretrained(run / "tokenizer")
        for step in range(10, 41, 10):
            file = run / f"images/step_{step:08d}.png"
            write_strip(file, side=16, count=4, seed=step, noise=50 - step)
        return run

    return make


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The folder of an evaluation of two tokenizers, one of them continuous."""
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path / "evaluation"
    random = np.random.default_rng(0)
    entries = []
    for number, name in enumerate(["runs/a<b>", "runs/kl"], start=1):
        home = folder / f"{number}_{name[5]}"
        home.mkdir(parents=True)
        columns: dict[str, object] = {"key": [f"image <{n}>" for n in range(40)]}
        for prefix, mean in (("", 22.0), ("jpeg/", 20.0), ("down_up/", 18.0)):
            columns[f"{prefix}psnr"] = random.normal(mean + number, 2, 40)
            columns[f"{prefix}ssim"] = random.uniform(0.4, 0.8, 40)
        parquet.write_table(pyarrow.table(columns), home / "per_image.parquet")
        for side in ("worst", "best"):
            (home / side).mkdir()
            for place in range(1, 4):
                panels = [random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
                picture = side_by_side([(panel, "22.00 dB") for panel in panels])
                picture.save(home / side / f"{place:02d}_image.png")
        is_continuous = name == "runs/kl"
        counts = random.multinomial(4_000, np.arange(16) / 120).tolist()
        entries.append(
            {
                "name": name,
                "image_size": 32,
                "count": 40,
                "tokens_per_image": 0 if is_continuous else 64,
                "bits_per_pixel": None if is_continuous else 0.25,
                "metrics": {"psnr": 22.0 + number, "ssim": 0.6, "rfid@40": 55.0},
                "protocols": {"psnr": {"library": "vqtrain", "dtype": "float64"}},
                "codebook": None
                if is_continuous
                else {
                    "num_codebooks": 1,
                    "size": 16,
                    "tokens": 4_000,
                    "ids_seen": [15],
                    "usage": 15 / 16,
                    "perplexity": 12.5,
                    "top1_share": 0.12,
                    "entropy_bits": 3.64,
                    "histogram": [counts],
                },
                "baselines": {
                    "jpeg": {"bits_per_pixel": 0.9, "metrics": {"psnr": 20.0, "ssim": 0.5}},
                    "down_up": {"bits_per_pixel": 0.25, "metrics": {"psnr": 18.0, "ssim": 0.4}},
                },
                "seconds": {"reading": 0.1, "tokenizer": 0.8},
                "cost": {
                    "device": "cpu, threads: 2",
                    "image_size": 32,
                    "parameters": {"encoder": 4000, "decoder": 5000, "projections": 100},
                    "weights_bytes": 36_400,
                    "encode_flops": 20_000_000,
                    "decode_flops": 30_000_000,
                    "timings": [
                        {
                            "operation": "encode",
                            "batch_size": 1,
                            "median_ms": 1.25,
                            "p95_ms": 1.5,
                            "images_per_s": 800.0,
                            "calls": 800,
                            "spread": 0.2,
                            "is_steady": False,
                            "change": None,
                            "memory_bytes": None,
                        }
                    ],
                    "too_large": [],
                    "is_steady": False,
                },
                "per_image": f"{home.name}/per_image.parquet",
                "skipped": [{"key": "broken", "shard": "a.tar", "reason": "it is empty"}],
            }
        )
    report = {
        "vqtrain": "0.1.0",
        "images": {"source": "https://me:secret@host/a.tar", "count": 40, "digest": "00"},
        "settings": {"crop": "resize", "device": "cpu"},
        "tokenizers": entries,
    }
    (folder / "evaluation.json").write_text(json.dumps(report))
    return folder


MakeBoard = Callable[..., tuple[Board, Path]]
FIGURES = {
    "A <b>": (0.5, 23.0, 0.6, 1),
    "B": (0.25, 22.0, 0.7, 1),
    "C": (0.25, 20.0, 0.5, 2),
    "KL": (None, 25.0, 0.8, 0),
}


@pytest.fixture
def make_board(tmp_path: Path) -> MakeBoard:
    """A leaderboard, and the folder of its rows with two pictures each."""
    import pyarrow
    from pyarrow import parquet

    rows = tmp_path / "board/rows"
    random = np.random.default_rng(0)
    originals = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)

    def measured(number: int, name: str) -> Row:
        rate, psnr, ssim, codebooks = FIGURES[name]
        home = rows / f"{number:016x}"
        (home / "first").mkdir(parents=True)
        columns = {"key": [f"image <{n}>" for n in range(3)], "psnr": [psnr - 1, psnr, psnr + 1]}
        parquet.write_table(pyarrow.table(columns), home / "per_image.parquet")
        for place, original in enumerate(originals, start=1):
            panels = [original, *random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)]
            picture = side_by_side([(panel, "22.00 dB") for panel in panels])
            picture.save(home / f"first/{place:02d}_image.png")
        cost = Cost(
            device="cpu, threads: 2",
            image_size=32,
            parameters={"encoder": 1000 * number, "decoder": 2000},
            weights_bytes=12_000,
            encode_flops=10**7 * number,
            decode_flops=10**7,
            timings=(),
            too_large=(),
            is_steady=True,
        )
        jpeg = BaselineResult(bits_per_pixel=0.9, metrics={"psnr": 20.5, "ssim": 0.5})
        result = TokenizerResult(
            image_size=32,
            count=3,
            tokens_per_image=64 if codebooks else 0,
            bits_per_pixel=rate,
            metrics={"psnr": psnr, "ssim": ssim},
            protocols={"psnr": {"dtype": "float64"}},
            codebook=CodebookUse(size=16, usage=0.5 + number / 10) if codebooks else None,
            baselines={"jpeg": jpeg} if number == 1 else {},
            cost=cost,
        )
        network = Network(
            encoder="cnn",
            codebook="grouped" if codebooks == 2 else "fsq" if codebooks else "kl",
            decoder="cnn",
            downsampling=(4, 4),
            vocabulary=16 if codebooks else None,
            num_codebooks=codebooks,
        )
        return Row(
            name=name,
            note="the <first> of all" if number == 1 else "",
            command=f"vqtrain evaluate tokenizer={number} images=demo image_size=32",
            tokenizer=f"{number:064x}",
            key=f"{number:016x}",
            network=network,
            state=MEASURED,
            result=result,
        )

    def make(*, measured_too: bool = True) -> tuple[Board, Path]:
        command = "vqtrain evaluate tokenizer=broken"
        reason = "no tokenizer at broken"
        all_rows = [Row(name="broken", note="", command=command, state=FAILED, reason=reason)]
        if measured_too:
            all_rows += [measured(number, name) for number, name in enumerate(FIGURES, start=1)]
        board = Board(
            title="Tokenizers <all>",
            images={"source": "demo", "count": 3, "digest": "00"},
            protocol={"image_size": "32", "metrics": "[psnr,ssim]"},
            rows=ranked(all_rows),
        )
        rows.mkdir(parents=True, exist_ok=True)
        return board, rows

    return make


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    """The folder of a probe of three tokenizers, the last of which has but begun."""
    folder = tmp_path / "probe"
    random = np.random.default_rng(0)
    tokenizers = []
    for place, name in enumerate(["ema <b>", "fsq", "lfq"]):
        home = folder / name
        home.mkdir(parents=True)
        # Two rows of three real images of 16 px, above as many sampled ones, with white between.
        picture = random.integers(0, 200, (4 * 18 - 2, 3 * 18 - 2, 3), dtype=np.uint8)
        Image.fromarray(picture).save(home / "samples.png")
        tokenizers.append(probe_of(name, place, is_whole=place < 2))
    images = {"train": {"source": "https://me:secret@host/a.tar", "count": 100}}
    settings = {"seed": 0, "transformer": {"budget": 1e13, "depth": None}}
    write_probe(ProbeReport(images=images, settings=settings, tokenizers=tokenizers), folder)
    return folder


def probe_of(name: str, place: int, *, is_whole: bool) -> TokenizerProbe:
    """What was found of a tokenizer: everything, or what comes before the first stage."""
    rate = 0.6 - 0.1 * place
    bits = {"marginal": rate - 0.02, "position": rate - 0.03, "context": rate - 0.05}
    shares = [0.1, 0.25, 0.5]
    stages: dict[str, Any] = {
        "entropy": EntropyResult(
            bits_per_token={key: 16 * value for key, value in bits.items()},
            bits_per_pixel=bits,
            seconds=1.5,
        ),
        "perturb": PerturbResult(
            neighbors=16,
            points=[
                PerturbPoint(share=share, metrics={"psnr": 22 - 10 * share, "ssim": 0.8 - share})
                for share in shares
            ],
            seconds=2.5,
        ),
        "transformer": TransformerResult(
            kind="masked" if place else "causal",
            is_bound=place > 0,
            depth=2,
            dim=64,
            parameters=123_456,
            steps=400,
            flops=1e13,
            images_seen=25_600,
            bits_per_token=16 * (rate - 0.1),
            bits_per_pixel=rate - 0.1,
            curve=[
                CurvePoint(step=step, bits_per_pixel=rate - 0.1 + 10 / step)
                for step in (100, 200, 300, 400)
            ],
            seconds=60.0,
        ),
        "samples": SamplesResult(
            count=64, metrics={"fid": 120.5}, sampling={"temperature": 1.0}, seconds=4.0
        ),
    }
    return TokenizerProbe(
        name=name,
        path=f"runs/{name}/latest",
        kind=name[:3],
        size=64,
        num_codebooks=1 + place % 2,
        token_shape=[8, 8],
        image_size=16,
        tokens_per_image=64,
        bits_per_pixel=rate,
        reconstruction={"psnr": 22.0 + place, "ssim": 0.8},
        **(stages if is_whole else {}),
    )


@pytest.fixture
def token_run(tmp_path: Path) -> Path:
    """The run directory of a transformer, as a probe leaves it."""
    run = tmp_path / "transformer"
    run.mkdir()
    config = {"order": "interleaved", "steps": 40, "batch_size": 8, "lr": 1e-3, "seed": 0}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "environment.json").write_text(json.dumps({"commands": ["vqtrain probe"]}))
    lines = []
    for step in range(4, 41, 4):
        bits = 6 + 10 / step
        line = {"train/loss": bits * math.log(2), "train/bits_per_token": bits}
        line |= {"train/model/gradient_norm": 0.5, "train/model/learning_rate": 1e-3}
        if step % 20 == 0:
            line |= {"val/bits_per_token": bits + 0.125, "val/bits_per_pixel": bits / 16}
        lines.append(json.dumps({"step": step, **line}) + "\n")
    (run / "metrics.jsonl").write_text("".join(lines))
    return run


MakeSweep = Callable[..., Path]
SPOILED = {2: ("failed", "exit code 1: out of memory"), 5: ("interrupted", ""), 9: ("waiting", "")}


@pytest.fixture
def make_sweep(tmp_path: Path) -> MakeSweep:
    """Write the folder of a sweep, as ``vqtrain sweep`` does, with jobs that went wrong."""

    def make(
        name: str = "sweep",
        *,
        kinds: int = 7,
        sizes: int = 3,
        seeds: int = 2,
        with_images: bool = True,
        side: int = 32,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        sweep = sweep_of(KINDS[:kinds], [64 * 4**n for n in range(sizes)], seeds)
        (folder / "sweep.json").write_text(json.dumps(sweep))
        for number, job in enumerate(sweep["jobs"]):
            if with_images and job["state"] in ("finished", "collapsed"):
                for step in (10, 20):
                    file = folder / job["run_dir"] / f"images/step_{step:08d}.png"
                    write_strip(file, side=side, count=4, seed=number, noise=60 - step)
                (folder / job["run_dir"] / "report.html").write_text("<!DOCTYPE html>")
        return folder

    return make


def sweep_of(kinds: list[str], sizes: list[int], seeds: int) -> dict[str, Any]:
    """Results of a sweep over kinds, sizes and, if there are some, seeds."""
    axes: dict[str, list[Any]] = {"codebook": kinds, "codebook.size": sizes}
    if seeds:
        axes["seed"] = list(range(seeds))
    jobs: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for kind in kinds:
        for size in sizes:
            own = []
            for seed in range(max(1, seeds)):
                own.append(job_of(len(jobs), kind, size, seed if seeds else None))
                jobs.append(own[-1])
            points.append(point_of(kind, size, own))
    for metric, sign in (("psnr", 1), ("lpips_alex", -1)):
        for point in points:
            rivals = [
                p for p in points if p["metrics"] and p["bits_per_pixel"] <= point["bits_per_pixel"]
            ]
            best = max((sign * p["metrics"][metric]["mean"] for p in rivals), default=None)
            if point["metrics"] and sign * point["metrics"][metric]["mean"] == best:
                point["frontier"].append(metric)
    return {
        "format": "vqtrain-sweep",
        "version": 1,
        "vqtrain": "0.1.0",
        "command": "vqtrain sweep codebook=vq,ema codebook.size=64,256 'name=<b>'",
        "axes": axes,
        "metrics": {"psnr": "higher", "lpips_alex": "lower"},
        "jobs": jobs,
        "points": points,
    }


def job_of(number: int, kind: str, size: int, seed: int | None) -> dict[str, Any]:
    """One job; some have failed, some have collapsed."""
    state, reason = SPOILED.get(number, ("collapsed" if number % 11 == 7 else "finished", ""))
    random = np.random.default_rng(number)
    values = {"codebook": kind, "codebook.size": size} | ({} if seed is None else {"seed": seed})
    name = "_".join(map(str, values.values()))
    job: dict[str, Any] = {
        "name": name,
        "values": values,
        "kind": kind,
        "state": state,
        "code": 1 if state == "failed" else 0,
        "reason": reason,
        "run_dir": f"jobs/{name}",
        "image_size": 64,
        "tokens_per_image": 256,
        "bits_per_pixel": None,
        "metrics": {},
        "codebook": None,
        "parameters": 100_000 + size * 32,
        "gflops": 0.4 + len(kind) / 20,
        "train_seconds": None,
    }
    if state not in ("finished", "collapsed"):
        return job
    usage = 0.01 if state == "collapsed" else float(random.uniform(0.6, 1))
    psnr = 14 + 1.2 * math.log2(size) * usage + len(kind) / 4 + float(random.normal(0, 0.2))
    return job | {
        "bits_per_pixel": 256 * math.log2(size) / 4096,
        "metrics": {"psnr": psnr, "lpips_alex": 1.2 - psnr / 30},
        "codebook": {"usage": usage, "perplexity": usage * size, "entropy_bits": 5.0},
        "probe": {"probe_bits_per_pixel": 200 * math.log2(size) / 4096 + len(kind) / 100},
        "train_seconds": 55 + float(random.uniform(0, 20)) + size / 100,
    }


def point_of(kind: str, size: int, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds of one combination say."""
    good = [job for job in jobs if job["metrics"]]

    def ends(values: list[float]) -> dict[str, float] | None:
        if not values:
            return None
        return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}

    return {
        "label": f"{kind}, codebook.size={size}",
        "kind": kind,
        "values": {"codebook": kind, "codebook.size": size},
        "jobs": [job["name"] for job in jobs],
        "bits_per_pixel": 256 * math.log2(size) / 4096,
        "collapsed": sum(job["state"] == "collapsed" for job in jobs),
        "parameters": jobs[0]["parameters"],
        "gflops": jobs[0]["gflops"],
        "train_seconds": ends([job["train_seconds"] for job in good]),
        "usage": ends([job["codebook"]["usage"] for job in good]),
        "metrics": {
            name: ends([job["metrics"][name] for job in good])
            for name in ("psnr", "lpips_alex")
            if good
        },
        "frontier": [],
        "probe": {
            name: ends([job["probe"][name] for job in good])
            for name in ("probe_bits_per_pixel",)
            if good
        },
    }
