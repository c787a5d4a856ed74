"""Times vqtrain evaluate against the passes that it cannot do without.

Two ways take turns over the same pictures, and their medians are compared: the forward passes of
the tokenizer and the passes of Inception over originals and reconstructions, on batches that are
ready in memory; and vqtrain evaluate with metrics=[psnr,ssim,fid] baselines=false cost=false, from
encoded pictures to its files, without statistics of the originals from an earlier round. Loading
the weights is in neither. The last line is JSON.
Run: python scripts/benchmark_evaluate.py photos-00000.tar --tokenizer runs/demo/latest
     --random-inception
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from torch import nn

from vqtrain.data.loading.batches import ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.find import open_images
from vqtrain.data.sources.index import ImageIndex
from vqtrain.evaluation import tables
from vqtrain.evaluation.models import (
    Model,
    entry_of,
    load_metrics,
    measure_all,
    save_images,
)
from vqtrain.evaluation.settings import ImageSettings, find_device
from vqtrain.metrics.base import Metric
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.build import build_metrics
from vqtrain.tokenizer.model import Tokenizer

METRICS = ("psnr", "ssim", "fid")
WORST = 8


def random_inception(folder: Path) -> str:
    """Write random weights in the form of torch-fidelity's file."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Empty(FeatureExtractorInceptionV3):
        """Keeps the weights it begins with, where the original has none without a file."""

        def load_state_dict(self, state_dict: object) -> None:
            """Load nothing."""
            del state_dict

    file = folder / "inception.pth"
    torch.save({}, file)
    network: nn.Module = Empty("inception", ["2048"], feature_extractor_weights_path=str(file))
    torch.save(network.state_dict(), file)
    return str(file)


@torch.inference_mode()
def bare(batches: list[torch.Tensor], tokenizer: Tokenizer, fid: FID) -> None:
    """Reconstruct what is in memory, and run Inception over both."""
    weight = tokenizer.project_in.weight
    for pixels in batches:
        moved = pixels.to(weight.device)
        made = tokenizer(tokenizer.to_images(moved)).images
        fid.features(made)
        fid.features_of_pixels(moved)
    if weight.device.type == "cuda":
        torch.cuda.synchronize()


def evaluate(
    model: Model,
    index: ImageIndex,
    metrics: Sequence[Metric],
    rules: Mapping[str, Mapping[str, str]],
    settings: ImageSettings,
    out: Path,
) -> dict[str, float]:
    """Do what the command does once the weights are loaded, and return the seconds of its parts."""
    out.mkdir()
    ((_, measured),) = measure_all(
        [model],
        index,
        metrics,
        rules,
        settings,
        with_baselines=False,
        max_bad_fraction=1.0,
        console=Console(quiet=True),
    )
    entry = entry_of(model, measured, index, metrics, rules, settings)
    save_images(entry, model, index, metrics, settings, WORST, out)
    tables.save(tables.Report(images={"count": len(index)}, settings={}, entries=[entry]), out)
    return dict(measured.seconds)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="IMAGES: tars or folders")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--images", type=int, help="how many of them; all without it")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--inception", help="torch-fidelity's file; torch's cache without it")
    weights.add_argument("--random-inception", action="store_true", help="random weights instead")
    return parser.parse_args()


def main() -> None:
    """Time both ways in turn, and print their medians."""
    arguments = parse()
    settings = ImageSettings(
        image_size=arguments.image_size,
        crop="resize",
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        device=arguments.device,
        precision="32-true",
    )
    sources = [str(Path(source).absolute()) for source in arguments.sources]
    whole = open_images(sources, role="validation")
    index = whole.select(np.arange(min(arguments.images or len(whole), len(whole))))
    tokenizer = settings.placed(Tokenizer.from_pretrained(arguments.tokenizer))
    transform = settings.transform(tokenizer)
    model = Model(name=arguments.tokenizer, folder=".", tokenizer=tokenizer, transform=transform)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = random_inception(folder) if arguments.random_inception else arguments.inception
        metrics = build_metrics(METRICS)
        given = {"inception": file}
        device = find_device(settings.device)
        loaded, _ = load_metrics(metrics, given=given, device=device, is_typed=True)
        rules = {metric.name: rule for metric, rule in loaded.items()}
        fid = metrics[-1]
        assert isinstance(fid, FID)
        batches = ValidationBatches(
            index,
            transform=transform,
            batch_size=settings.batch_size,
            rank=0,
            world_size=1,
        )
        loader = Loader(batches, numbers=range(len(batches)), num_workers=settings.workers)
        ready = [batch.samples[batch.mask] for batch in loader]
        bare(ready[:1], tokenizer, fid)  # the first ones are slower
        seconds: dict[str, list[float]] = {"passes alone": [], "vqtrain evaluate": []}
        for number in range(arguments.rounds):
            began = time.perf_counter()
            bare(ready, tokenizer, fid)
            seconds["passes alone"].append(time.perf_counter() - began)
            # Each round has a cache of its own, so that each computes the originals.
            os.environ["VQTRAIN_CACHE"] = str(folder / f"cache-{number}")
            began = time.perf_counter()
            parts = evaluate(model, index, metrics, rules, settings, folder / f"out-{number}")
            seconds["vqtrain evaluate"].append(time.perf_counter() - began)
            print(", ".join(f"{part} {taken:.1f} s" for part, taken in parts.items()))
    for way, taken in seconds.items():
        print(f"{way:<20}{median(taken):8.2f} s  ({min(taken):.2f} to {max(taken):.2f})")
    medians = {way: round(median(taken), 2) for way, taken in seconds.items()}
    ratio = median(seconds["vqtrain evaluate"]) / median(seconds["passes alone"])
    print(json.dumps({"images": len(index), **medians, "ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
