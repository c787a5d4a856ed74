"""The stages of a probe of one tokenizer, and what must hold before the first one."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain.app.parts.probes.folder import SAMPLES, TOKENIZER
from vqtrain.app.parts.probes.run import TokenizerRun
from vqtrain.app.parts.probes.transformer import draw, read_model
from vqtrain.app.parts.progress import shown_progress, under
from vqtrain.app.tokenize import encoder, make_token_plan
from vqtrain.data.media import IMAGE
from vqtrain.data.shards.folder import ALL
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.tokens.write import write
from vqtrain.errors import BadSampleError, ConfigError, require
from vqtrain.evaluation.measure import Change, measuring_device
from vqtrain.evaluation.models import measure_model, refuse_many
from vqtrain.evaluation.reference import content_digest
from vqtrain.generation.base import Condition
from vqtrain.generation.entropy import measure_entropy
from vqtrain.generation.grid import image_grid, nearly_square
from vqtrain.generation.perturb import Perturbation
from vqtrain.generation.results import PerturbPoint, PerturbResult, SamplesResult
from vqtrain.generation.samples import measure_samples
from vqtrain.metrics.base import SetMetric
from vqtrain.metrics.fid import FID
from vqtrain.ops.noise import SampleNoise
from vqtrain.ops.pixels import to_pixels
from vqtrain.shapes import Pixels
from vqtrain.tokenizer.checks import MAX_LISTED
from vqtrain.training.token_arrays import read_tokens

SHARD_SIZE = 10_000
FINDING = "looking for the fields of the samples"
# Real images in a picture, and as many drawn ones.
MAX_SHOWN = 32


def check(run: TokenizerRun) -> None:
    """Refuse what cannot work, before anything is written.

    Raises:
        ConfigError: If a stage lacks what it needs.
    """
    options, found, left = run.options, run.found, run.left
    media = run.model.transform.media
    if media is not IMAGE and {"transformer", "samples"} & {*left}:
        raise ConfigError(
            f"the transformer and its samples are of images: of {media.noun}s give "
            "probe=[entropy,perturb]"
        )
    if "samples" in left:
        require(
            "transformer" in options.stages or found.transformer is not None,
            "probe=samples draws from the transformer: give probe=[transformer,samples]",
        )
    size = run.form.size
    require(
        "perturb" not in left or 1 < size <= MAX_LISTED,
        f"probe=perturb needs 2 to {MAX_LISTED:,} codes, this tokenizer has {size:,}: leave it out",
    )
    if {"perturb", "samples"} & {*left} or not found.reconstruction:
        assert run.metrics, "they are loaded to be checked"
    if "transformer" not in left:
        return
    training, count = options.training, run.images.num_train
    require(
        count >= training.batch_size,
        f"{count:,} images to train on are fewer than the {training.batch_size:,} of a step: give "
        "a smaller transformer.batch_size",
    )
    field, fields = training.condition, run.images.fields
    require(
        field is None or field in fields,
        f"transformer.condition={field}: images have no such field, but "
        f"{', '.join(fields) or 'none at all'}",
    )
    from vqtrain.app.parts.probes.training import plan  # imports Lightning, which takes seconds

    plan(run, Condition())


def prepare(run: TokenizerRun) -> None:
    """Keep the tokenizer, turn images into ids, and measure reconstructions, unless it is done."""
    tokenizer, settings = run.model.tokenizer, run.settings
    indexes: dict[Path, SampleIndex] = {run.val_tokens: run.images.val}
    if not (run.folder / TOKENIZER).is_dir():
        tokenizer.save_pretrained(run.folder / TOKENIZER)
    if run.images.train is not None:
        indexes = {run.train_tokens: run.images.train, **indexes}
    # Hashes of the tokenizer before it is rounded on its device.
    plans = {
        folder: make_token_plan(
            tokenizer, index, settings, shard_size=SHARD_SIZE, layout="webdataset"
        )
        for folder, index in indexes.items()
    }
    encode = encoder(tokenizer, settings)
    for folder, plan in plans.items():
        word = "held-out ids" if folder == run.val_tokens else "training ids"
        with shown_progress(run.console, FINDING, run.model.transform.media.noun) as progress:
            write(
                plan,
                out=folder,
                encode=encode,
                share=ALL,
                num_workers=settings.workers,
                max_bad_fraction=run.options.max_bad_fraction,
                progress=under(word, progress),
            )
    if not run.found.reconstruction:
        run.keep(reconstruction=measure(run, "reconstruction"))
        run.say("decoded", figures(run.found.reconstruction))


def measure(run: TokenizerRun, word: str, change: Change | None = None) -> dict[str, float]:
    """Measure decoded held-out images, those of their own ids or of others."""
    val = run.images.val
    needs_content = any(isinstance(metric, SetMetric) for metric in run.metrics)
    with shown_progress(run.console, word, run.model.transform.media.noun) as progress:
        measured = measure_model(
            run.model,
            val,
            list(run.metrics),
            {metric.name: rule for metric, rule in run.metrics.items()},
            run.settings,
            digest=content_digest(val) if needs_content else "",
            baselines={},
            progress=partial(progress, word),
            change=change,
        )
    refuse_many(measured, val, run.options.max_bad_fraction)
    return measured.tokenizer.metrics


def figures(metrics: Mapping[str, float]) -> str:
    """Write figures on one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def entropy(run: TokenizerRun) -> None:
    """Count ids, and encode the held-out ones."""
    ids = [
        read_tokens(each, condition=None).token_ids for each in (run.train_tokens, run.val_tokens)
    ]
    train, val = (torch.from_numpy(each.astype(np.int64)) for each in ids)
    found = measure_entropy(run.form, train, val, num_positions=run.num_positions)
    run.keep(entropy=found)
    run.say("entropy", f"bits/px: {figures(found.bits_per_pixel)}")


def perturb(run: TokenizerRun) -> None:
    """Decode held-out images with some of their ids replaced by near ones."""
    options, began = run.options.perturbing, time.perf_counter()
    perturbation = Perturbation(run.model.tokenizer, neighbors=options.neighbors)
    points = []
    for share in sorted(map(float, options.shares)):

        def change(
            token_ids: Int64[Tensor, "b k *tokens"], places: Sequence[int], share: float = share
        ) -> Int64[Tensor, "b k *tokens"]:
            noise = SampleNoise(seeds=[(run.options.seed, place) for place in places])
            return perturbation(token_ids, share=share, noise=noise)

        metrics = measure(run, f"{share:.0%} of ids perturbed", change)
        points.append(PerturbPoint(share=share, metrics=metrics))
        run.say("perturbed", f"{share:.0%} of the ids: {figures(metrics)}")
    seconds = time.perf_counter() - began
    run.keep(perturb=PerturbResult(neighbors=options.neighbors, points=points, seconds=seconds))


def train(run: TokenizerRun) -> int | None:
    """Train the transformer; see ``vqtrain.app.parts.probes.training.train``."""
    from vqtrain.app.parts.probes import training  # imports Lightning, which takes seconds

    return training.train(run)


def samples(run: TokenizerRun) -> None:
    """Draw images from the transformer, next to real ones."""
    options, began = run.options.sampling, time.perf_counter()
    model = read_model(run.folder, run.model.tokenizer, run.form)
    conditions = conditions_for(run, options.count)
    drawn: list[Pixels] = []
    with shown_progress(run.console, "samples") as progress:
        for pixels in draw(
            model,
            run.model.tokenizer,
            conditions,
            options.sampling,
            seed=run.options.seed,
            settings=run.settings,
        ):
            drawn.append(pixels)
            progress("samples", sum(map(len, drawn)), options.count)
    made, real = torch.cat(drawn), real_images(run, options.count)
    few = min(len(made), len(real))
    columns = nearly_square(min(MAX_SHOWN, few))
    shown = min(MAX_SHOWN, few) // columns * columns
    image_grid(torch.cat([real[:shown], made[:shown]]), columns).save(run.folder / SAMPLES)
    metrics = set_metrics(run, made, real)
    run.say("samples", figures(metrics) if metrics else f"{options.count} images")
    run.keep(
        samples=SamplesResult(
            count=options.count,
            metrics=metrics,
            sampling=asdict(options.sampling),
            seconds=time.perf_counter() - began,
        )
    )


def set_metrics(run: TokenizerRun, made: Pixels, real: Pixels) -> dict[str, float]:
    """Compare drawn images with as many real ones; nothing without FID, or of one image."""
    fid = next((metric for metric in run.metrics if isinstance(metric, FID)), None)
    if fid is None or min(len(made), len(real)) < 2:
        return {}
    device = measuring_device(run.model.tokenizer.device)
    return measure_samples(fid, made, real, device=device, batch_size=run.settings.batch_size)


def conditions_for(run: TokenizerRun, count: int) -> Int64[Tensor, "n m"]:
    """Return what is known of held-out images, in their order and from the first one again."""
    field = run.options.training.condition
    if field is None:
        return torch.zeros(count, 0, dtype=torch.int64)
    known = torch.from_numpy(read_tokens(run.val_tokens, condition=field).conditions)
    return known[torch.arange(count) % len(known)]


def real_images(run: TokenizerRun, count: int) -> Pixels:
    """Return the first held-out images that can be read, as pixels."""
    val = run.images.val
    found: list[Pixels] = []
    for image_id in range(len(val)):
        if len(found) == count:
            break
        with suppress(BadSampleError):
            pixels = run.model.transform.decode(val.read(image_id), None)
            found.append(to_pixels(run.model.tokenizer.to_images(pixels[None])))
    return torch.cat(found)


# What each stage does; it returns the exit code if it has not come to its end.
DO: Mapping[str, Callable[[TokenizerRun], int | None]] = {
    "entropy": entropy,
    "perturb": perturb,
    "transformer": train,
    "samples": samples,
}
