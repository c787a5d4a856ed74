"""``metrics.jsonl``: what is written to it, and what a resumed run takes back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer

from vqtrain.training.console import RunConsole
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.record import Record, append_line, cut_back
from vqtrain.training.validation import Validation


def strict(text: str) -> list[dict[str, float | None]]:
    """Read lines of JSON by the standard's own grammar, which knows no NaN."""
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, 3, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.1})
    append_line(path, 4, {"a": 1.0})
    assert strict(path.read_text()) == [
        {"step": 3, "a": None, "b": None, "c": None, "d": 0.1},
        {"step": 4, "a": 1.0},
    ]


def line(step: int) -> str:
    return json.dumps({"step": step, "train/generator/total": step / 7}) + "\n"


@pytest.mark.parametrize(
    ("text", "step", "kept"),
    [
        (line(1) + line(2) + line(3), 2, line(1) + line(2)),
        (line(1) + line(2), 2, line(1) + line(2)),
        (line(1) + line(2) + line(3)[:9], 5, line(1) + line(2)),
        (line(1) + line(2)[:-1], 2, line(1)),  # whole but for its end: what follows would join it
        (line(1) + line(2), 0, ""),
        (line(9) + line(10) + line(11), 10, line(9) + line(10)),
        ("", 5, ""),
        (line(1) + "\0\0\xff\n[2]\n{}\n" + line(3), 2, line(1) + "\0\0\xff\n[2]\n{}\n"),
    ],
    ids=["later", "nothing", "torn", "no-newline", "all", "by-number", "empty", "damaged"],
)
def test_a_resumed_run_drops_later_and_torn_lines(
    text: str, step: int, kept: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text, encoding="latin-1")
    cut_back(path, step)
    assert path.read_text(encoding="latin-1") == kept
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_has_nothing_to_cut_back(tmp_path: Path) -> None:
    cut_back(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def step_end(
    validation: Validation, record: Record
) -> tuple[Callback, Callable[[Trainer, TokenizerTraining], None]]:
    """Time the batches, and validate and record after each step."""

    class Timed(Callback):
        def on_train_batch_start(self, *_: object, **__: object) -> None:
            record.console.begin_batch()

    def end(trainer: Trainer, module: TokenizerTraining) -> None:
        record.console.end_batch(module.step, images=4)
        validation.measure_if_due(trainer, module)
        record.write(module, validation)

    return Timed(), end


def test_a_line_holds_what_is_due_at_its_step(
    tmp_path: Path,
    make_module: Callable[..., TokenizerTraining],
    make_data: Callable[..., TrainingData],
    make_validation: Callable[..., Validation],
    fit: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_data()
    validation = make_validation(data)
    console = RunConsole(log=tmp_path / "log.txt", max_steps=7, data=data, is_main=True)
    record = Record(path=tmp_path / "metrics.jsonl", console=console, tracker=None)
    module = make_module(
        optim={"lr": 0.1, "warmup_steps": 4}, max_steps=7, log_every=2, validate_every=3
    )
    fit(module, *step_end(validation, record), data=data)
    lines = strict((tmp_path / "metrics.jsonl").read_text())
    groups = {line["step"]: {key.split("/")[0] for key in line} - {"step"} for line in lines}
    both = {"train", "val"}
    assert groups == {2: {"train"}, 3: {"val"}, 4: {"train"}, 6: both, 7: both}
    # Batches of 4 of 48 pictures.
    assert [line["train/epoch"] for line in lines if "train/epoch" in line][:2] == [8 / 48, 16 / 48]
    assert lines[0].keys() - {"step"} == {
        "train/epoch",
        "train/generator/total",
        "train/generator/reconstruction",
        "train/generator/codebook",
        "train/generator/gradient_norm",
        "train/codebook/distance",
        "train/codebook/encoder_gradient",
        "train/codebook/restarts",
        "train/codebook/top1_share",
        "train/codebook/usage",
        "train/codebook/perplexity",
        "train/skipped_steps",
        "train/generator/learning_rate",
    }
    assert lines[1].keys() - {"step"} == {
        "val/psnr",
        "val/ssim",
        "val/codebook/usage",
        "val/codebook/perplexity",
        "val/codebook/top1_share",
    }
    # The rate of the update that was made: updates 2, 4, 6 and 7 have 2/4, 4/4 and all of it.
    rates = [
        line["train/generator/learning_rate"]
        for line in lines
        if "train/generator/learning_rate" in line
    ]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("/7")[0] for line in shown if "images/s" in line] == [
        "step 2",
        "step 4",
        "step 6",
        "step 7",
    ]
    assert [line.split("/7")[0] for line in shown if "validation: psnr" in line] == [
        "step 3",
        "step 6",
        "step 7",
    ]


def test_other_ranks_write_nothing(
    tmp_path: Path,
    make_module: Callable[..., TokenizerTraining],
    make_data: Callable[..., TrainingData],
    make_validation: Callable[..., Validation],
    fit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqtrain.distributed.rank", lambda: 1)
    data = make_data()
    validation = make_validation(data)
    console = RunConsole(log=tmp_path / "log.txt", max_steps=2, data=data, is_main=False)
    record = Record(path=tmp_path / "metrics.jsonl", console=console, tracker=None)
    # A codebook that asks no other rank for samples, as there is none.
    fsq = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
    module = make_module(max_steps=2, codebook=fsq)
    fit(module, *step_end(validation, record), data=data)
    assert validation.results
    assert list(tmp_path.iterdir()) == []
