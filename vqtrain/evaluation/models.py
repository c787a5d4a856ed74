"""Tokenizers that are evaluated together: loaded, measured and described for the table."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import cast, final

import torch

from vqtrain.data.decoding.base import Transform
from vqtrain.data.faults import most_left_out
from vqtrain.data.media import IMAGE, SOUND, VIDEO
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import ConfigError, DataError, WeightsError, require
from vqtrain.evaluation import tables
from vqtrain.evaluation.baselines import (
    BASELINES,
    CLIP_BASELINES,
    Baseline,
    bits_per_pixel,
    kbit_per_second,
    tokens_per_image,
)
from vqtrain.evaluation.cost import Cost, measure_cost
from vqtrain.evaluation.measure import Change, Measured, measure, measuring_device
from vqtrain.evaluation.reference import Reference, content_digest
from vqtrain.evaluation.repeats import compare_with_last
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.metrics.base import Metric, SetMetric
from vqtrain.metrics.parts.build import Given, describe, load_weights, set_sample_rate, why_not
from vqtrain.shapes import ImageSize, by, in_words
from vqtrain.tokenizer.discretized import origin_of
from vqtrain.tokenizer.model import Tokenizer

MAX_NAME = 100  # characters of a name in the name of a file


@final
@dataclass(frozen=True, kw_only=True)
class Model:
    """A tokenizer that is evaluated.

    Attributes:
        name: As the user wrote it.
        folder: Where its files go, below ``out``.
        tokenizer: On its device.
        transform: How images become samples for it.
        num_tokens: How many tokens of a sequence are decoded, from the first on; None for all.
    """

    name: str
    folder: str
    tokenizer: Tokenizer
    transform: Transform
    num_tokens: int | None

    @property
    def bits_per_pixel(self) -> float | None:
        """The rate of its ids; None of a continuous codebook."""
        size = self.transform.sample_size
        return bits_per_pixel(self.tokenizer, size, self.num_tokens)


def load_all(
    typed: str | list[str],
    allow: Sequence[str],
    settings: SampleSettings,
    counts: Sequence[int | None],
) -> list[Model]:
    """Load the tokenizers, each once for all numbers of tokens.

    Raises:
        ConfigError: If one is named twice, or a size or a number of tokens does not fit it.
        CheckpointError: If one cannot be read.
    """
    names = names_of(typed)
    for name in names:
        require(names.count(name) == 1, f"tokenizer={name} is named twice")
    rows = []
    for name in names:
        tokenizer = settings.placed(Tokenizer.from_pretrained(name, allow=allow))
        transform = settings.transform(tokenizer)
        for count in counts:
            check_count(name, tokenizer, transform.sample_size, count)
            shown = name if count is None else f"{name} ({count} tokens)"
            rows.append((shown, tokenizer, transform, count))
    models = []
    for number, (name, tokenizer, transform, count) in enumerate(rows, start=1):
        short = re.sub(r"[^\w.-]+", "-", name).strip("-.")[-MAX_NAME:]
        models.append(
            Model(
                name=name,
                folder=f"{number}_{short}" if len(rows) > 1 else ".",
                tokenizer=tokenizer,
                transform=transform,
                num_tokens=count,
            )
        )
    return models


def check_count(name: str, tokenizer: Tokenizer, size: tuple[int, ...], count: int | None) -> None:
    """Refuse a number of tokens that the decoder does not take."""
    if count is None:
        return
    *rest, tokens = grid = tokenizer.encoder.grid(size)
    require(
        not rest,
        f"num_tokens={count} is for sequences of tokens, but {name} has a grid of {by(grid)}",
    )
    require(count <= tokens, f"num_tokens={count}, but {name} has {tokens} tokens")
    try:
        tokenizer.decoder.size((count,))
    except ConfigError as error:
        raise ConfigError(f"num_tokens={count} does not fit {name}: {error}") from error


def names_of(typed: str | list[str]) -> list[str]:
    """Read the key ``tokenizer``, which may name several."""
    return typed if isinstance(typed, list) else typed.split(",")


def choose_metrics(
    metrics: Sequence[Metric], transforms: Sequence[Transform], *, is_typed: bool
) -> tuple[list[Metric], list[str]]:
    """Return the metrics that the images of all tokenizers fit, and a line for each other one.

    Raises:
        ConfigError: If one that the user has typed does not fit.
    """
    fitting, notes = [], []
    for metric in metrics:
        reasons = (why_not(metric, each.channels, each.sample_size) for each in transforms)
        reason = next(filter(None, reasons), None)
        if reason is None:
            fitting.append(metric)
        elif is_typed:
            raise ConfigError(reason)
        else:
            notes.append(f"left out: {reason}")
    return fitting, notes


def other_crops(models: Sequence[Model], crop: str) -> list[str]:
    """Say of each tokenizer that was trained with another crop that its run's figures differ."""
    trained = {each.name: each.tokenizer.training_summary.get("crop", crop) for each in models}
    return [
        f"{name} was trained with crop={word} and is measured with crop={crop}: crop={word} gives "
        "the figures that its run has logged"
        for name, word in trained.items()
        if word != crop
    ]


def load_metrics(
    metrics: Sequence[Metric], *, given: Given, device: torch.device, is_typed: bool
) -> tuple[dict[Metric, dict[str, str]], list[str]]:
    """Load the weights of metrics, and say how the values of each come about.

    Args:
        metrics: Metrics, of which at least one needs no weights unless they are typed.
        given: Paths of weights.
        device: Of the samples.
        is_typed: Whether the user has named the metrics, so that all are needed.

    Returns:
        How the values of each metric come about, and a line for each one that is left out because
        its weights can neither be found nor downloaded.

    Raises:
        WeightsError: If weights that are needed or given are missing, damaged or those of another
            network.
    """
    loaded: dict[Metric, dict[str, str]] = {}
    notes = []
    for metric in metrics:
        try:
            load_weights([metric], given, device)
        except WeightsError as error:
            if is_typed or any(given.get(name) is not None for name in metric.weights):
                without = [each.name for each in metrics if not each.weights] or ["psnr"]
                needless = f"metrics=[{','.join(without)}] needs no weights"
                raise WeightsError(f"{error}; {needless}") from error
            notes.append(f"left out: {metric.name}: {error}")
        else:
            loaded[metric] = describe(metric, given)
    return loaded, notes


def measure_all(
    models: Sequence[Model],
    index: SampleIndex,
    metrics: Sequence[Metric],
    rules: Mapping[str, Mapping[str, str]],
    settings: SampleSettings,
    *,
    with_baselines: bool,
    max_bad_fraction: float,
    shown: Callable[[str], AbstractContextManager[Callable[[str, int, int], None]]],
) -> Iterator[tuple[Model, Measured]]:
    """Measure one tokenizer after the other; collective.

    ``shown`` returns a context with a function that shows how far a tokenizer is: its name, images
    done, images in all.
    """
    began = time.perf_counter()
    of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    digest = content_digest(index) if of_sets else ""
    seconds = {"hashing": time.perf_counter() - began} if of_sets else {}
    for model in models:
        with shown(model.name) as progress:
            measured = measure_model(
                model,
                index,
                metrics,
                rules,
                settings,
                digest=digest,
                baselines=baselines_of(model) if with_baselines else {},
                progress=partial(progress, model.name),
            )
        refuse_many(measured, index, max_bad_fraction)
        yield (
            model,
            replace(
                measured,
                faults=[*index.faults, *measured.faults],  # also what indexing has found damaged
                seconds={**seconds, **measured.seconds},
            ),
        )
        seconds = {}


def measure_model(
    model: Model,
    index: SampleIndex,
    metrics: Sequence[Metric],
    rules: Mapping[str, Mapping[str, str]],
    settings: SampleSettings,
    *,
    digest: str,
    baselines: Mapping[str, Baseline],
    progress: Callable[[int, int], None],
    change: Change | None = None,
) -> Measured:
    """Measure one tokenizer; see ``measure``.

    Args:
        model: The tokenizer.
        index: The images.
        metrics: With their weights.
        rules: By metric, how its values come about.
        settings: How images are read, and on what all is computed.
        digest: Of the content of the images, by which moments of the originals are kept.
        baselines: As in ``measure``, like those below.
        progress: Shows how far it is.
        change: Makes other ids to decode.
    """
    device = measuring_device(find_device(settings.device))
    set_sample_rate(metrics, model.transform.summary)
    return measure(
        model.tokenizer,
        index,
        transform=model.transform,
        num_tokens=model.num_tokens,
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        metrics=metrics,
        references={
            metric.name: Reference(
                index_digest=digest,
                metric=metric,
                described=rules[metric.name],
                device=device,
                transform=model.transform,
            )
            for metric in metrics
            if isinstance(metric, SetMetric)
        },
        baselines=baselines,
        bits_per_pixel=model.bits_per_pixel or 0.0,
        autocast=settings.autocast,
        progress=progress,
        change=change,
    )


def refuse_many(measured: Measured, index: SampleIndex, max_bad_fraction: float) -> None:
    """Refuse figures of images of which too many could not be read.

    Raises:
        DataError: If more were skipped than may be.
    """
    faults = measured.faults
    if len(faults) > most_left_out(max_bad_fraction, len(index)):
        last = faults[-1]
        raise DataError(
            f"{len(faults)} of {len(index)} {index.media.noun}s cannot be read, more than "
            f"max_bad_fraction={max_bad_fraction} allows; the last one, {last.key!r} in "
            f"{last.shard}: {last.reason}"
        )


def baselines_of(model: Model) -> dict[str, Baseline]:
    """Return the baselines that the samples and the rate of a tokenizer allow."""
    if model.transform.media is VIDEO:
        return CLIP_BASELINES
    if model.transform.media is SOUND or model.transform.channels not in (1, 3):
        return {}
    rate = model.bits_per_pixel
    # Without a rate there is none for a codec to meet.
    return {word: each for word, each in BASELINES.items() if rate or word == "down_up"}


def entry_of(
    model: Model,
    measured: Measured,
    index: SampleIndex,
    metrics: Sequence[Metric],
    rules: Mapping[str, Mapping[str, str]],
    settings: SampleSettings,
) -> tables.Entry:
    """Put together the results of a tokenizer, without its cost."""
    size, media, count = model.transform.sample_size, model.transform.media, len(measured.image_ids)
    words = in_words(size)
    images = {
        "crop": words if media is SOUND else f"{settings.crop} to {words}",
        f"{media.noun}s": f"{count:,}",
    }
    names = {
        metric.name: f"{metric.name}@{count}" if isinstance(metric, SetMetric) else metric.name
        for metric in metrics
    }
    return tables.Entry(
        name=model.name,
        folder=model.folder,
        image_size=cast(ImageSize, model.transform.summary["image_size"])
        if media is IMAGE
        else list(size),
        tokens_per_image=tokens_per_image(model.tokenizer, size, model.num_tokens),
        bits_per_pixel=model.bits_per_pixel,
        kbit_per_second=kbit_per_second(model.tokenizer, size, model.num_tokens),
        keys=[index.key(image_id) for image_id in measured.image_ids],
        measured=measured,
        rules={names[name]: {**rule, **images} for name, rule in rules.items()},
        cost=None,
        origin=origin_of(model.tokenizer.training_summary),
    )


def with_costs(
    entries: Sequence[tables.Entry], models: Sequence[Model], settings: SampleSettings
) -> Iterator[tables.Entry]:
    """Measure what each tokenizer costs with all of its tokens, by single images and by batches."""
    costs: dict[Tokenizer, Cost] = {}
    for entry, model in zip(entries, models, strict=True):
        if model.tokenizer not in costs:
            cost = measure_cost(
                model.tokenizer,
                image_size=entry.image_size,
                device=find_device(settings.device),
                autocast=settings.autocast,
                batch_sizes=sorted({1, settings.batch_size}),
            )
            work = {**model.tokenizer.specification, "precision": settings.precision}
            costs[model.tokenizer] = compare_with_last(cost, work=work)
        yield replace(entry, cost=costs[model.tokenizer])
