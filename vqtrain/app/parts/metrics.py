"""The metrics of reconstructions that a user has named."""

from collections.abc import Sequence

from vqtrain.app.parts.choices import metric_entries, read_choice, refuse_unlisted
from vqtrain.errors import require
from vqtrain.metrics.base import Metric, TextMetric
from vqtrain.metrics.parts.build import Entry, build_metrics


def listed_metrics(names: Sequence[Entry] | str) -> Sequence[Entry]:
    """Return the metrics that are named, or those of a word of the group.

    Raises:
        ConfigError: If there is no such word.
    """
    if not isinstance(names, str):
        return names
    refuse_unlisted(names)
    listed: list[Entry] = read_choice("metrics", names, None)["names"]
    return listed


def reconstruction_metrics(names: Sequence[Entry] | str) -> list[Metric]:
    """Build metrics without their weights: those named, or those of a word of the group.

    Raises:
        ConfigError: If one cannot be built, or measures no reconstructions.
    """
    metrics = build_metrics(metric_entries(list(listed_metrics(names)), None))
    for metric in metrics:
        require(
            not isinstance(metric, TextMetric),
            f"metrics: {metric.name} is for vqtrain train alone: it needs the space of images and "
            "texts of a run, which is no part of a tokenizer",
        )
    return metrics
