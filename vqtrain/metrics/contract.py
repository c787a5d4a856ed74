"""What every metric must do."""

import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from vqtrain.errors import ConfigError, require
from vqtrain.metrics.base import Metric, SampleMetric, SetMetric, TextMetric, is_by_frame, mismatch
from vqtrain.metrics.parts.build import Given, load_weights
from vqtrain.ops.pixels import to_images

BATCH = 3
SAMPLE_RATE = 16_000  # in Hz, where none is set


def check(
    metric: Metric,
    *,
    given: Given | None = None,
    channels: int | None = None,
    size: Sequence[int] | None = None,
) -> None:
    """Check that a metric keeps the promises of its kind: ``SampleMetric`` or another.

    Args:
        metric: As it is built; its weights are loaded.
        given: Paths of weights by key; None to look in torch's cache.
        channels: Of the samples to try it on; None for a number that it declares.
        size: Of their axes; None for a small one that it declares.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    _check_declarations(metric)
    if channels is None:
        channels = metric.channels[-1] if metric.channels else 3
    if size is None:
        size = (max(metric.min_size, 48),) * (metric.axes or 2)
        if metric.axes == 3:
            size = (max(metric.min_frames, 3), *(max(metric.min_size, 16),) * 2)
    metric.sample_rate = metric.sample_rate or SAMPLE_RATE
    load_weights([metric], given or {}, torch.device("cpu"))
    size = size[1:] if is_by_frame(metric, size) else size
    reason = mismatch(metric, channels, size)
    require(reason is None, reason or "")
    generator = torch.Generator().manual_seed(0)
    shape = BATCH, channels, *size
    original = torch.randint(0, 246, shape, generator=generator, dtype=torch.uint8)
    # Each farther from its original than the one before, so that no two values are alike.
    most = torch.arange(3, 3 + 3 * BATCH, 3).reshape(BATCH, *[1] * (len(shape) - 1))
    noise = torch.randint(0, 256, shape, generator=generator) % most
    if isinstance(metric, SampleMetric):
        pair = (original + noise).to(torch.uint8), original
        if metric.takes_levels:
            _check_values(metric, *pair, wrong=(to_images(each) for each in pair))
        else:
            _check_values(metric, *(to_images(each) for each in pair), wrong=pair)
    if isinstance(metric, SetMetric):
        _check_features(metric, original)
    if isinstance(metric, TextMetric):
        _check_recall(metric)


def _check_declarations(metric: Metric) -> None:
    require(
        isinstance(metric, SampleMetric | SetMetric | TextMetric),
        "it is no SampleMetric, SetMetric or TextMetric",
    )
    for name in ("name", "title", "definition"):
        require(bool(getattr(metric, name, "")), f"{name} must be declared")
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", metric.name) is not None,
        f"name must be lower case, of letters, digits and underscores, got {metric.name!r}",
    )
    require(
        isinstance(getattr(metric, "higher_is_better", None), bool),
        "higher_is_better must be declared, True or False",
    )


def _check_values(
    metric: SampleMetric, other: Tensor, original: Tensor, *, wrong: Iterable[Tensor]
) -> None:
    before = other.clone(), original.clone()
    values = metric(other, original)
    require(
        values.shape == (BATCH,) and values.dtype == torch.float64,
        f"a batch of {BATCH} must give {BATCH} values in float64, got {list(values.shape)} in "
        f"{values.dtype}",
    )
    require(bool(values.isfinite().all()), "values must be finite")
    again = metric(other, original)
    require(torch.equal(again, values), "the same samples must give the same values again")
    is_kept = torch.equal(other, before[0]) and torch.equal(original, before[1])
    require(is_kept, "samples must stay as they are")
    alone = [metric(other[i : i + 1], original[i : i + 1]) for i in range(BATCH)]
    require(
        torch.allclose(torch.cat(alone), values, rtol=1e-5, atol=1e-7),
        "the value of a sample must not depend on the others in the batch",
    )
    perfect = metric(original, original)
    is_best = perfect > values if metric.higher_is_better else perfect < values
    word = "higher" if metric.higher_is_better else "lower"
    require(
        bool(is_best.all()),
        f"a perfect reconstruction must have a better value, and {word} is declared better",
    )
    what = "floats" if metric.takes_levels else "uint8"
    _check_refusal(what, lambda: metric(*wrong))


def _check_features(metric: SetMetric, original: Tensor) -> None:
    features = metric.features_of_pixels(original)
    require(
        features.shape == (BATCH, metric.dim) and features.is_floating_point(),
        f"a batch of {BATCH} must give features [{BATCH}, {metric.dim}] as floats",
    )
    require(bool(features.isfinite().all()), "features must be finite")
    require(
        torch.allclose(metric.features(to_images(original)), features, rtol=1e-3, atol=1e-3),
        "a perfect reconstruction must have the features of its original",
    )
    alone = [metric.features_of_pixels(original[i : i + 1]) for i in range(BATCH)]
    require(
        torch.allclose(torch.cat(alone), features, rtol=1e-3, atol=1e-4),
        "the features of a sample must not depend on the others in the batch",
    )
    _check_refusal("floats as pixels", lambda: metric.features_of_pixels(original.float()))


def _check_recall(metric: TextMetric) -> None:
    """Compare texts that are where their images are with texts that are not."""
    images = torch.eye(2 * BATCH)
    words = [f"text {number}" for number in range(len(images))]
    perfect = metric.values(images, images, words)
    require(
        metric.name in perfect and all(name.startswith(metric.name) for name in perfect),
        f"values must have names that begin with {metric.name}, and one that name alone",
    )
    wrong = metric.values(images, images.roll(1, dims=0), words)
    own, other = perfect[metric.name], wrong[metric.name]
    require(
        own > other if metric.higher_is_better else own < other,
        "texts that are where their images are must have a better value",
    )


def _check_refusal(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except TypeError:
        return
    raise ConfigError(f"{what} must raise a TypeError, as values would mean something else")
