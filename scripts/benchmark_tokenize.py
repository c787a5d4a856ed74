"""Times vqtrain tokenize against its bare encoder, and against one file an image.

Three ways take turns over the same images, and their medians are compared: the encoder alone, on
batches that are ready in memory; all of vqtrain tokenize, from encoded images to shards with
their hashes; and the way of LlamaGen's extraction script: batches of 1, and np.save for each. The
network is that of f16 tokenizers, with random weights: what it costs does not depend on them.
The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_tokenize.py photos-00000.tar --images 256
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from vqtrain.app.tokenize import encoder, make_token_plan
from vqtrain.data.loading.batches import Batch, ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.shards.folder import Share
from vqtrain.data.tokens.plan import Plan
from vqtrain.data.tokens.write import Encode, write
from vqtrain.evaluation.settings import ImageSettings
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


def main() -> None:
    """Time all ways in turn, and print their medians."""
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
    settings = ImageSettings(
        image_size=arguments.image_size,
        crop="resize",
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        device=arguments.device,
        precision=arguments.precision,
    )
    tokenizer = build(arguments.channels)
    sources = [str(Path(source).absolute()) for source in arguments.sources]
    whole = make_token_plan(tokenizer, sources, settings, shard_size=10_000, layout="webdataset")
    chosen = whole.images.select(np.arange(min(arguments.images, len(whole.images))))
    plan = Plan(
        images=chosen,
        keys=whole.keys[: len(chosen)],
        settings=whole.settings,
        identity={**whole.identity, "images": {"count": len(chosen), "digest": chosen.digest}},
    )
    encode = encoder(tokenizer, settings)
    ready = list(loaded(plan, batch_size=settings.batch_size, num_workers=settings.workers))
    bare(ready[:2], encode)  # the first ones are slower
    parent = Path(tempfile.mkdtemp())
    ways: dict[str, Callable[[Path], None]] = {
        "bare encoder": lambda _folder: bare(ready, encode),
        "vqtrain tokenize": lambda folder: tokenize(plan, encode, folder, settings.workers),
        "one file an image": lambda folder: one_file_each(plan, encode, folder, settings.workers),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run(parent / "out")
            rates[name].append(len(chosen) / (time.perf_counter() - began))
            shutil.rmtree(parent / "out", ignore_errors=True)
    shutil.rmtree(parent)
    for name, found in rates.items():
        print(f"{name:<20}{median(found):8.2f} images/s  ({min(found):.2f} to {max(found):.2f})")
    medians = {name: round(median(found), 2) for name, found in rates.items()}
    fraction = median(rates["vqtrain tokenize"]) / median(rates["bare encoder"])
    print(json.dumps({**medians, "of the bare encoder": round(fraction, 3)}))


if __name__ == "__main__":
    main()
