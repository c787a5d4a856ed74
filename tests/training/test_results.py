"""What a run directory says of its run."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np

from vqtrain.training.results import Curve, read_metrics


def test_metrics_are_read_with_gaps_and_without_what_is_torn(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 1, "train/a": 0.5}\n{"step": 2, "train/a": null, "val/psnr": 20}\n'
        '[1]\nno json\n{"train/a": 3}\n{"step": 3, "train/a": 0.'
    )
    metrics, damaged = read_metrics(file)
    assert damaged == 3  # the last one is being written
    assert metrics["train/a"].steps.tolist() == [1, 2]
    assert metrics["train/a"].values[0] == 0.5
    assert math.isnan(metrics["train/a"].values[1])
    assert metrics["val/psnr"].last() == (2, 20.0)
    assert read_metrics(tmp_path / "missing.jsonl") == ({}, 0)


def test_the_best_is_the_highest_or_the_lowest_and_never_missing() -> None:
    curve = Curve(steps=np.array([1.0, 2, 3]), values=np.array([5.0, math.nan, 7]))
    assert curve.best(is_lower_better=False) == (3, 7.0)
    assert curve.best(is_lower_better=True) == (1, 5.0)
    empty = Curve(steps=np.array([1.0]), values=np.array([math.nan]))
    assert (empty.best(is_lower_better=True), empty.last()) == (None, None)


def test_reports_are_made_without_lightning() -> None:
    code = "import sys, vqtrain.reports.page; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
