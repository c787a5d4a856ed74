"""Times vqtrain tokenize against its bare encoder, and against one file an image.

Three ways take turns over the same images: the encoder alone, on batches that are ready in memory;
all of vqtrain tokenize, from encoded images to shards with their hashes; and the way of LlamaGen's
extraction script: batches of 1, and np.save for each. The network is that of f16 tokenizers, with
random weights: what it costs does not depend on them. The fastest rounds are compared, as other
programs only add time, and so is the CPU time of the main process. The encoder has one thread, and
the worker that decodes another core. The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_tokenize.py photos-00000.tar --images 256
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch

from vqtrain.app.tokenize import encoder, make_token_plan
from vqtrain.data.loading.batches import Batch, ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.shards.folder import Share
from vqtrain.data.sources.find import open_samples
from vqtrain.data.tokens.plan import Plan
from vqtrain.data.tokens.write import Encode, write
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.ops.memory import give_back_freed_memory
from vqtrain.tokenizer.model import Tokenizer


def build(channels: int) -> Tokenizer:
    """Build a tokenizer that divides the side of an image by 16."""
    network = {
        "channels": channels,
        "multipliers": [1, 1, 2, 2, 4],
        "num_blocks": 2,
        "attention_factors": [16],
        "latent_channels": 256,
        "dropout": 0.0,
    }
    return Tokenizer(
        encoder={"kind": "cnn", "arguments": {"in_channels": 3, **network}},
        codebook={"kind": "fsq", "arguments": {"size": 16384, "levels": None, "eps": 1e-3}},
        decoder={"kind": "cnn", "arguments": {"out_channels": 3, **network}},
        channels=3,
    ).eval()


def loaded(plan: Plan, *, batch_size: int, num_workers: int) -> Loader:
    """Load the images of a plan."""
    batches = ValidationBatches(
        plan.images,
        transform=plan.settings.transform,
        batch_size=batch_size,
        rank=0,
        world_size=1,
    )
    return Loader(batches, numbers=range(len(batches)), num_workers=num_workers)


def bare(batches: list[Batch], encode: Encode) -> None:
    """Encode what is in memory, to its end."""
    for batch in batches:
        encode(batch.samples).cpu()


def one_file_each(plan: Plan, encode: Encode, folder: Path, num_workers: int) -> None:
    """Encode a picture at a time, and save each in a file."""
    folder.mkdir()
    for number, batch in enumerate(loaded(plan, batch_size=1, num_workers=num_workers)):
        np.save(folder / f"{number}.npy", encode(batch.samples)[0].cpu().numpy())


def tokenize(plan: Plan, encode: Encode, folder: Path, num_workers: int) -> None:
    """Do what the command does once tokenizer and index are there."""
    report = write(
        plan,
        out=folder,
        encode=encode,
        share=Share(number=0, of=1),
        num_workers=num_workers,
        max_bad_fraction=0.0,
        progress=lambda _shard, _done, _total: None,
    )
    assert report is not None
    assert report["samples"] == len(plan.images)


def compare(
    ways: dict[str, Callable[[], None]], *, images: int, rounds: int
) -> dict[str, float | dict[str, float]]:
    """Time ways in turn, print images/s, and compare the first with the second, which does more.

    Args:
        ways: What to time, by name.
        images: How many each of them handles.
        rounds: How often.

    Returns:
        Images/s of the fastest round of each way, and the share of the second way in the first, in
        time and in CPU time of this process.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            give_back_freed_memory()  # each begins as a command does
            began, cpu_began = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(
                (time.perf_counter() - began, time.process_time() - cpu_began),
            )
    fastest = {name: tuple(map(min, zip(*taken, strict=True))) for name, taken in seconds.items()}
    for name, (wall, cpu) in fastest.items():
        slowest = max(wall for wall, _ in seconds[name])
        print(
            f"{name:<20}{images / wall:8.2f} images/s  (slowest {images / slowest:.2f}), "
            f"{cpu / images * 1e3:.1f} ms of CPU time an image"
        )
    alone, whole = list(fastest.values())[:2]
    shares = {"time": round(alone[0] / whole[0], 3), "CPU time": round(alone[1] / whole[1], 3)}
    return {name: round(images / wall, 2) for name, (wall, _) in fastest.items()} | {
        "share": shares
    }


def main() -> None:
    """Time all ways in turn, and print what is left of the bare encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="IMAGES: tars or folders")
    parser.add_argument("--images", type=int, default=256, help="how many of them")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--channels", type=int, default=64, help="of the first layer")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    settings = SampleSettings(
        image_size=arguments.image_size,
        crop="resize",
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        device=arguments.device,
        precision=arguments.precision,
    )
    tokenizer = build(arguments.channels)
    sources = [str(Path(source).absolute()) for source in arguments.sources]
    index = open_samples(sources, role="training")
    chosen = index.select(np.arange(min(arguments.images, len(index))))
    plan = make_token_plan(tokenizer, chosen, settings, shard_size=10_000, layout="webdataset")
    encode = encoder(tokenizer, settings)
    ready = list(loaded(plan, batch_size=settings.batch_size, num_workers=settings.workers))
    bare(ready[:2], encode)  # the first ones are slower
    with tempfile.TemporaryDirectory() as parent:
        folders = (Path(parent) / str(number) for number in count())
        ways: dict[str, Callable[[], None]] = {
            "bare encoder": lambda: bare(ready, encode),
            "vqtrain tokenize": lambda: tokenize(plan, encode, next(folders), settings.workers),
            "one file an image": lambda: one_file_each(
                plan, encode, next(folders), settings.workers
            ),
        }
        found = compare(ways, images=len(chosen), rounds=arguments.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
