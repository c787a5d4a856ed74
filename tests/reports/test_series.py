"""From metrics.jsonl to charts of what belongs together."""

import numpy as np
import pytest

from vqtrain.reports.series import MOST_OF_ALL, charts_of, place_of
from vqtrain.training.results import Curve


@pytest.mark.parametrize(
    ("metric", "group", "chart", "name"),
    [
        ("val/psnr", "Validation", "PSNR", "PSNR"),
        ("val/rfid@5000", "Validation", "rFID@5000", "rFID@5000"),
        ("val/codebook/usage", "Codebook", "Usage", "validation"),
        ("train/codebook/usage", "Codebook", "Usage", "training"),
        ("train/generator/total", "Losses", "Terms of the loss", "total"),
        ("train/generator/gradient_norm", "Optimization", "Gradient norms", "generator"),
        ("train/discriminator/learning_rate", "Optimization", "Learning rates", "discriminator"),
        ("train/discriminator/logits_fake", "Discriminator", "Mean logits", "fake"),
        ("train/adversarial/weight", "Discriminator", "Adversarial weight", "weight"),
        ("train/skipped_steps", "Other", "Skipped steps", "skipped steps"),
        ("train/something/new", "Other", "New", "new"),
    ],
)
def test_a_metric_has_its_place(metric: str, group: str, chart: str, name: str) -> None:
    place = place_of(metric)
    assert (place.group, place.chart, place.name) == (group, chart, name)


def test_training_and_validation_share_a_chart_in_this_order() -> None:
    curve = Curve(steps=np.array([1.0]), values=np.array([0.5]))
    (group,) = charts_of({"val/codebook/usage": curve, "train/codebook/usage": curve})
    (chart,) = group.charts
    assert [line["name"] for line in chart["lines"]] == ["training", "validation"]  # type: ignore[attr-defined]


def test_many_long_curves_stay_small() -> None:
    steps = np.arange(500_000.0)
    curve = Curve(steps=steps, values=np.sin(steps))
    groups = charts_of({f"train/generator/{n}": curve for n in range(60)})
    lines = [line for group in groups for chart in group.charts for line in chart["lines"]]  # type: ignore[attr-defined]
    assert len(lines) == 60
    assert sum(len(line["x"]) for line in lines) <= MOST_OF_ALL
