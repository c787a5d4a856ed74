"""From entries of a configuration to metrics that are ready to use."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import cast

import torch

from vqtrain import weights
from vqtrain.build import build, third_party
from vqtrain.errors import ConfigError
from vqtrain.metrics.base import Metric, is_by_frame, mismatch
from vqtrain.metrics.parts.adapter import TorchMetric, refusal
from vqtrain.version import __version__

# A kind word or ``package.module:Class``, or a mapping of ``kind`` and arguments.
Entry = str | Mapping[str, object]

# Paths of weights by key; None to look in torch's cache, and to download what is not there.
Given = Mapping[str, str | None]


def kind_of(entry: Entry) -> str:
    """Return the kind that an entry names.

    Raises:
        ConfigError: If it names none.
    """
    kind = entry if isinstance(entry, str) else entry.get("kind")
    if not isinstance(kind, str):
        raise ConfigError(f"metrics: an entry is a word or {{kind:WORD,...}}, got {entry!r}")
    return kind


def build_metric(entry: Entry) -> Metric:
    """Build a metric, without its weights.

    Raises:
        ConfigError: If the kind or an argument is unknown or impossible.
    """
    kind = kind_of(entry)
    arguments = {} if isinstance(entry, str) else {k: v for k, v in entry.items() if k != "kind"}
    if ":" in kind:
        found = third_party(kind, where="metrics")
        if not issubclass(found, Metric) and hasattr(found, "higher_is_better"):
            return TorchMetric(found, arguments)  # type: ignore[arg-type]  # one of torchmetrics
    metric = build("metric", kind, arguments, where="metrics")
    assert isinstance(metric, Metric), "every kind keeps the contract of its group"
    return metric


def build_metrics(entries: Sequence[Entry]) -> list[Metric]:
    """Build metrics, without their weights.

    Raises:
        ConfigError: If there is none, one cannot be built, or two have one name.
    """
    metrics = [build_metric(entry) for entry in entries]
    if not metrics:
        raise ConfigError("metrics must name at least one, such as metrics=[psnr]")
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"metrics: {name} is named twice")
    return metrics


def why_not(metric: Metric, channels: int, size: Sequence[int]) -> str | None:
    """Say why samples of a shape cannot be measured by a metric; None if they can."""
    size = size[1:] if is_by_frame(metric, size) else size
    found = mismatch(metric, channels, size)
    if found is None and isinstance(metric, TorchMetric):
        found = refusal(metric, channels, size)
    return found


def set_sample_rate(metrics: Sequence[Metric], summary: Mapping[str, object]) -> None:
    """Tell metrics the sample rate of what they compare, by the summary of its transform."""
    for metric in metrics:
        metric.sample_rate = cast(int | None, summary.get("sample_rate"))


def load_weights(metrics: Sequence[Metric], given: Given, device: torch.device) -> None:
    """Load the weights of metrics, and move them to the device of the samples.

    Raises:
        WeightsError: If weights are missing, damaged or those of another network.
    """
    for metric in metrics:
        metric.load({name: weights.find(name, given.get(name)) for name in metric.weights})
        metric.to(device)


def describe(metric: Metric, given: Given) -> dict[str, str]:
    """Say how the values of a metric come about, so that they can be compared with others."""
    found = __version__ if metric.package == "vqtrain" else version(metric.package)
    described = {
        "library": f"{metric.package} {found}",
        "definition": metric.definition,
        **metric.details,
        "rounding": metric.rounding,
        "dtype": metric.dtype,
        "better": "higher" if metric.higher_is_better else "lower",
    }
    for name in metric.weights:
        described |= weights.describe(name, weights.find(name, given.get(name)))
    return described
