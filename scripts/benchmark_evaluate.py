"""Times vqtrain evaluate against the passes that it cannot do without.

Two ways take turns over the same images: the forward passes of encoder and decoder, and with
--metrics fid those of Inception over originals and reconstructions, on batches that are ready in
memory; and vqtrain evaluate with these metrics, baselines=false cost=false worst=0, from encoded
images to its files, without statistics of the originals from an earlier round. Loading the weights
is in neither. The share is that of the fastest rounds, as other programs only add time; that of CPU
time counts the main process. Without --tokenizer the network is that of f16 tokenizers, with random
weights: what it costs does not depend on them. The last line is JSON.
Run: OMP_NUM_THREADS=1 python scripts/benchmark_evaluate.py photos-00000.tar --images 64
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import torch
from benchmark_tokenize import build, compare
from torch import nn

from vqtrain.data.loading.batches import ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.evaluation import tables
from vqtrain.evaluation.extremes import save_extremes
from vqtrain.evaluation.models import (
    Model,
    entry_of,
    load_metrics,
    measure_all,
)
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.metrics.base import Metric
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.build import build_metrics
from vqtrain.tokenizer.model import Tokenizer


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
def bare(batches: list[torch.Tensor], tokenizer: Tokenizer, fids: Sequence[FID]) -> None:
    """Reconstruct what is in memory, and run Inception over both."""
    for pixels in batches:
        moved = pixels.to(tokenizer.device)
        reconstruction = tokenizer(tokenizer.to_images(moved, tokenizer.dtype)).samples
        for fid in fids:
            fid.features(reconstruction)
            fid.features_of_pixels(moved)
    if tokenizer.device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def unseen(_name: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show no progress."""
    yield lambda _name, _done, _total: None


def evaluate(
    model: Model,
    index: SampleIndex,
    metrics: Sequence[Metric],
    rules: Mapping[str, Mapping[str, str]],
    settings: SampleSettings,
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
        shown=unseen,
    )
    entry = entry_of(model, measured, index, metrics, rules, settings)
    save_extremes(entry, model, index, metrics, settings, 0, out)
    tables.save(tables.Report(images={"count": len(index)}, settings={}, entries=[entry]), out)
    return dict(measured.seconds)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", help="IMAGES: tars or folders")
    parser.add_argument("--tokenizer", help="a network of f16 tokenizers without it")
    parser.add_argument("--channels", type=int, default=64, help="of the first layer of that")
    parser.add_argument("--metrics", nargs="+", default=["psnr", "ssim"])
    parser.add_argument("--images", type=int, help="how many of them; all without it")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--inception", help="torch-fidelity's file; torch's cache without it")
    weights.add_argument("--random-inception", action="store_true", help="random weights instead")
    return parser.parse_args()


def main() -> None:
    """Time both ways in turn, and print what is left of the bare passes."""
    arguments = parse()
    settings = SampleSettings(
        image_size=arguments.image_size,
        crop="resize",
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        device=arguments.device,
        precision="32-true",
    )
    sources = [str(Path(source).absolute()) for source in arguments.sources]
    whole = open_samples(sources, role="validation")
    index = whole.select(np.arange(min(arguments.images or len(whole), len(whole))))
    name = arguments.tokenizer
    built = build(arguments.channels) if name is None else Tokenizer.from_pretrained(name)
    tokenizer = settings.placed(built)
    transform = settings.transform(tokenizer)
    model = Model(
        name=name or "random weights",
        folder=".",
        tokenizer=tokenizer,
        transform=transform,
        num_tokens=None,
    )
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        file = random_inception(folder) if arguments.random_inception else arguments.inception
        metrics = build_metrics(arguments.metrics)
        device = find_device(settings.device)
        loaded, _ = load_metrics(metrics, given={"inception": file}, device=device, is_typed=True)
        rules = {metric.name: rule for metric, rule in loaded.items()}
        fids = [metric for metric in metrics if isinstance(metric, FID)]
        batches = ValidationBatches(index, transform=transform, batch_size=settings.batch_size)
        loader = Loader(batches, numbers=range(len(batches)), num_workers=settings.workers)
        ready = [batch.samples[batch.mask] for batch in loader]
        bare(ready[:1], tokenizer, fids)  # the first ones are slower
        numbers = count()

        def whole() -> None:
            # Each round has a cache of its own, so that each computes the originals.
            out = folder / f"out-{next(numbers)}"
            os.environ["VQTRAIN_CACHE"] = f"{out}-cache"
            parts = evaluate(model, index, metrics, rules, settings, out)
            print(", ".join(f"{part} {taken:.1f} s" for part, taken in parts.items()))

        ways = {
            "bare passes": lambda: bare(ready, tokenizer, fids),
            "vqtrain evaluate": whole,
        }
        found = compare(ways, images=len(index), rounds=arguments.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
