"""Four batches of two images make the very step that one batch of eight makes."""

import json
from pathlib import Path

import pytest
import torch

from vqtrain.cli import main

SETTINGS = [
    "trainer.precision=64-true",
    "trainer.max_steps=50",
    "trainer.log_every=10",
    "trainer.validate_every=25",
    "trainer.checkpoint_every=50",
    "codebook.decay=0.8",
    "optim.lr=3.0e-3",
]


def train(tmp_path: Path, name: str, words: list[str]) -> tuple[dict[str, torch.Tensor], list]:
    run = tmp_path / name
    assert main(["train", *words, f"run_dir={run}"]) == 0
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = {
        **checkpoint["training"]["weights"],
        **{f"average.{name}": value for name, value in checkpoint["tokenizer"]["weights"].items()},
    }
    return weights, lines


@pytest.mark.slow
@pytest.mark.parametrize("restart_below", [0.5, 0.0], ids=["restarts", "none"])
def test_accumulated_batches_equal_one_batch(
    restart_below: float, tiny: list[str], tmp_path: Path
) -> None:
    words = [*tiny, *SETTINGS, f"codebook.restart_below={restart_below}"]
    one, one_lines = train(tmp_path, "one", [*words, "data.batch_size=8"])
    split, split_lines = train(
        tmp_path, "split", [*words, "data.batch_size=2", "trainer.accumulate=4"]
    )
    for name, expected in one.items():
        torch.testing.assert_close(split[name], expected, rtol=0, atol=1e-9, msg=name)
    for a, b in zip(one_lines, split_lines, strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_restarts_really_happen_in_that_run(tiny: list[str], tmp_path: Path) -> None:
    words = [*tiny, *SETTINGS, "data.batch_size=8"]
    often, _ = train(tmp_path, "often", [*words, "codebook.restart_below=0.5"])
    never, _ = train(tmp_path, "never", [*words, "codebook.restart_below=0.0"])
    assert not torch.allclose(often["codebook.vectors"], never["codebook.vectors"])


@pytest.mark.slow
def test_each_part_of_the_tokenizer_is_trained(tiny: list[str], tmp_path: Path) -> None:
    before, _ = train(
        tmp_path, "before", [*tiny, "codebook=vq", "codebook.size=16", "optim.lr=1e-20"]
    )
    after, _ = train(tmp_path, "after", [*tiny, "codebook=vq", "codebook.size=16", "optim.lr=1e-2"])
    for name in before:
        assert not torch.equal(before[name], after[name]), name
