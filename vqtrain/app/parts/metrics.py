"""The metrics of reconstructions that a user has named."""

from collections.abc import Sequence

from vqtrain.app.parts.choices import metric_entries, read_choice, refuse_unlisted
from vqtrain.errors import require
from vqtrain.metrics.base import Metric, TextMetric
from vqtrain.metrics.parts.build import Entry, build_metrics


def reconstruction_metrics(names: Sequence[Entry] | str) -> list[Metric]:
    """Build metrics without their weights: those named, or those of a word of the group.

    Raises:
        ConfigError: If one cannot be built, or measures no reconstructions.
    """
    if isinstance(names, str):
        refuse_unlisted(names)
        names = read_choice("metrics", names, None)["names"]
    metrics = build_metrics(metric_entries(list(names), None))
    for metric in metrics:
        require(
            not isinstance(metric, TextMetric),
            f"metrics: {metric.name} is for vqtrain train alone: it needs the space of images and "
            "texts of a run, which is no part of a tokenizer",
        )
    return metrics
