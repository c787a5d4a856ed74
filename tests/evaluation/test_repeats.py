"""What is kept of a machine's speed, and what is said of figures that do not repeat."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vqtrain.evaluation.cost import Cost, Timing
from vqtrain.evaluation.repeats import compare_with_last
from vqtrain.evaluation.tables import cost_lines

TIMING = Timing(
    operation="encode",
    batch_size=1,
    median_ms=2.0,
    p95_ms=4.0,
    images_per_s=400.0,
    calls=900,
    spread=0.01,
    is_steady=True,
    change=None,
    memory_bytes=None,
)
COST = Cost(
    device="cpu, threads: 1",
    image_size=16,
    parameters={},
    weights_bytes=0,
    encode_flops=0,
    decode_flops=0,
    timings=(TIMING,),
    too_large=(),
    is_steady=True,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQTRAIN_CACHE", str(tmp_path))


def compared(work: str = "a", **changes: float) -> tuple[float | None, str]:
    cost = replace(COST, timings=(replace(TIMING, **changes),))
    found = compare_with_last(cost, work={"networks": work})
    return found.timings[0].change, "\n".join(cost_lines(found))


def test_the_first_run_says_that_it_is_the_first() -> None:
    change, text = compared()
    assert change is None
    assert "not measured on this machine before" in text


def test_a_run_that_repeats_says_so() -> None:
    compared()
    # The largest of 2.1 / 2, 4 / 4 and 400 / 400.
    change, text = compared(median_ms=2.1)
    assert change == pytest.approx(0.05)
    assert "the same speed, within 10 %" in text
    assert "not repeated:" not in text


@pytest.mark.parametrize(
    ("changes", "by"),
    [({"median_ms": 2.5}, 0.25), ({"p95_ms": 2.0}, 1.0), ({"images_per_s": 300.0}, 1 / 3)],
)
def test_a_run_that_does_not_repeat_says_by_how_much(changes: dict[str, float], by: float) -> None:
    compared()
    change, text = compared(**changes)
    assert change == pytest.approx(by)
    assert f"not repeated: the last run here differs by {by:.0%}" in text
    assert "the speed did not repeat" in text


def test_a_run_is_compared_with_the_last_one() -> None:
    compared()
    compared(median_ms=3.0)
    assert compared(median_ms=3.0)[0] == 0


def test_other_work_is_not_compared() -> None:
    compared()
    assert compared("b", median_ms=3.0)[0] is None
    other = replace(COST, device="cpu, threads: 2")
    assert compare_with_last(other, work={"networks": "a"}).timings[0].change is None


def test_other_batch_sizes_are_kept_beside() -> None:
    compared()
    assert compared(batch_size=8)[0] is None
    assert compared()[0] == 0


@pytest.mark.parametrize("content", ["", "[1]", '{"encode 1": [1, 2]}', '{"encode 1": 3}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: str) -> None:
    compared()
    (file,) = (tmp_path / "speed").iterdir()
    assert json.loads(file.read_text()) == {"encode 1": [2.0, 4.0, 400.0]}
    file.write_text(content)
    assert compared()[0] is None
    assert compared()[0] == 0
