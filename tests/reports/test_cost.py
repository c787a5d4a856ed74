"""What tokenizers of an evaluation cost."""

from pathlib import Path

from vqtrain.evaluation.results import TokenizerResult, read_evaluation
from vqtrain.reports.blocks import Table, Text
from vqtrain.reports.cost import cost_blocks


def test_size_speed_and_time_are_tables(evaluation: Path) -> None:
    size, speed, seconds = cost_blocks(read_evaluation(evaluation).tokenizers)
    assert isinstance(size, Table)
    row = dict(zip(size.heads, (cell.text for cell in size.rows[0]), strict=True))
    assert row["parameters"] == "9,100"  # 4,000 + 5,000 + 100
    assert row["encode (GFLOPs)"] == "0.020"
    assert isinstance(speed, Table)
    row = dict(zip(speed.heads, (cell.text for cell in speed.rows[0]), strict=True))
    assert (row["median (ms)"], row["memory (MiB)"], row["stable"]) == ("1.25", "-", "no")
    assert isinstance(seconds, Table)
    assert seconds.heads == ["name", "reading", "tokenizer"]


def test_what_was_not_measured_is_a_sentence() -> None:
    (text,) = cost_blocks([TokenizerResult(name="a", image_size=8, metrics={})])
    assert isinstance(text, Text)
