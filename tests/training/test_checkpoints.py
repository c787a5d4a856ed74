"""Which checkpoints are written, kept and pointed to."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vqtrain import Tokenizer
from vqtrain.errors import CheckpointError
from vqtrain.training.checkpoints import Checkpointing, link, read, restore
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.validation import Validation

MakeModule = Callable[..., TokenizerTraining]
MakeData = Callable[..., TrainingData]


def scripted(
    checkpointing: Checkpointing, validation: Validation, values: Mapping[int, float]
) -> Callable[[Trainer, TokenizerTraining], None]:
    """Checkpoint after validations that are said to have measured these values."""

    def end_step(trainer: Trainer, module: TokenizerTraining) -> None:
        value = values.get(module.step)
        validation.results = {} if value is None else {"val/psnr": value, "val/ssim": -value}
        checkpointing.save_if_due(module, validation, is_last=trainer.should_stop)

    return end_step


class Files:
    """Notes after each step which step every file in checkpoints/, and tokenizer/, holds."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.seen: dict[int, dict[str, int]] = {}

    def __call__(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Look into every file."""
        del trainer
        files = sorted((self.run_dir / "checkpoints").glob("*"))
        held = {file.name: read(file)["training"]["step"] for file in files}
        config = self.run_dir / "tokenizer/config.json"
        if config.exists():
            held["tokenizer"] = json.loads(config.read_text())["training"]["step"]
        self.seen[module.step] = held


Train = Callable[..., Files]


@pytest.fixture
def train(
    make_module: MakeModule,
    make_data: MakeData,
    make_validation: Callable[..., Validation],
    fit: Callable[..., None],
    tmp_path: Path,
) -> Train:
    """Train with checkpoints, after validations that measured given values."""

    def train(
        values: Mapping[int, float],
        *more: Callable[[Trainer, TokenizerTraining], None],
        best: str = "psnr",
        module: TokenizerTraining | None = None,
        **settings: object,
    ) -> Files:
        data = make_data()
        validation = make_validation(data, best=best)
        checkpointing = Checkpointing(
            run_dir=tmp_path,
            config={"name": "test"},
            data=data,
            callbacks={},
            resumed=None,
        )
        files = Files(tmp_path)
        module = module or make_module(**settings)
        fit(module, scripted(checkpointing, validation, values), *more, files, data=data)
        return files

    return train


def step(number: int) -> str:
    return f"step_{number:08d}.ckpt"


def test_last_and_best_are_right_after_every_step(train: Train) -> None:
    values = {1: 10.0, 2: 12.0, 3: 11.0, 4: 9.0, 5: 15.0, 6: 13.0}
    files = train(values, max_steps=7, checkpoint_every=2, keep_checkpoints=2)
    assert files.seen == {
        # A new best between two checkpoints is best.ckpt alone.
        1: {"best.ckpt": 1},
        2: {"best.ckpt": 2, "last.ckpt": 2, step(2): 2, "tokenizer": 2},
        3: {"best.ckpt": 2, "last.ckpt": 2, step(2): 2, "tokenizer": 2},
        4: {"best.ckpt": 2, "last.ckpt": 4, step(2): 2, step(4): 4, "tokenizer": 4},
        5: {"best.ckpt": 5, "last.ckpt": 4, step(2): 2, step(4): 4, "tokenizer": 4},
        6: {"best.ckpt": 5, "last.ckpt": 6, step(4): 4, step(6): 6, "tokenizer": 6},
        # The last step has a checkpoint though it falls on no interval.
        7: {"best.ckpt": 5, "last.ckpt": 7, step(6): 6, step(7): 7, "tokenizer": 7},
    }


def test_the_best_outlives_its_numbered_checkpoint(train: Train) -> None:
    files = train({2: 12.0, 4: 12.0}, max_steps=6, checkpoint_every=2, keep_checkpoints=1)
    # An equal value is no better one.
    assert files.seen[6] == {"best.ckpt": 2, "last.ckpt": 6, step(6): 6, "tokenizer": 6}


def test_another_metric_may_choose_the_best(train: Train) -> None:
    # Scripted sets SSIM to minus the value.
    files = train({2: 12.0, 4: 13.0, 6: 11.0}, best="ssim", max_steps=6, checkpoint_every=2)
    assert [files.seen[number]["best.ckpt"] for number in (2, 4, 6)] == [2, 2, 6]


def test_without_a_validation_there_is_no_best(train: Train) -> None:
    files = train({}, max_steps=2, checkpoint_every=1)
    assert files.seen[2].keys() == {"last.ckpt", step(1), step(2), "tokenizer"}


def test_checkpoints_of_what_the_run_had_become_before_are_deleted(
    train: Train, tmp_path: Path
) -> None:
    # As after a return to an earlier checkpoint of the same run.
    (tmp_path / "checkpoints").mkdir()
    later = {
        "tokenizer": {"config": {}, "weights": {}},
        "training": {"step": 9},
    }
    torch.save(later, tmp_path / "checkpoints" / step(9))
    files = train({}, max_steps=3, checkpoint_every=1, keep_checkpoints=2)
    assert files.seen[1].keys() == {"last.ckpt", step(1), "tokenizer"}
    assert files.seen[3].keys() == {"last.ckpt", step(2), step(3), "tokenizer"}


def test_copies_that_a_user_made_are_left_alone(train: Train, tmp_path: Path) -> None:
    copies = ("step_good.ckpt", step(99), step(0))

    def copy(trainer: Trainer, module: TokenizerTraining) -> None:
        del trainer
        if module.step == 1:
            for name in copies:
                shutil.copy(tmp_path / "checkpoints" / step(1), tmp_path / "checkpoints" / name)

    files = train({}, copy, max_steps=4, checkpoint_every=1, keep_checkpoints=2)
    assert files.seen[4] == {
        **dict.fromkeys(copies, 1),
        "last.ckpt": 4,
        step(3): 3,
        step(4): 4,
        "tokenizer": 4,
    }


@pytest.mark.parametrize("ema_decay", [0.5, 0.0])
def test_a_checkpoint_holds_averaged_weights_for_use_and_its_own_to_go_on(
    ema_decay: float, train: Train, make_module: MakeModule, tmp_path: Path
) -> None:
    module = make_module(max_steps=3, ema_decay=ema_decay)
    train({3: 12.0}, module=module)
    checkpoint = read(tmp_path / "checkpoints/last.ckpt")
    own = module.tokenizer.state_dict()
    averaged = module.average.state_dict() if module.average else own
    exported = Tokenizer.from_pretrained(tmp_path)
    for name, tensor in own.items():
        assert torch.equal(checkpoint["training"]["weights"][name], tensor), name
        assert torch.equal(checkpoint["tokenizer"]["weights"][name], averaged[name]), name
        assert torch.equal(exported.state_dict()[name], averaged[name]), name
    assert (ema_decay == 0) == torch.equal(averaged["project_in.weight"], own["project_in.weight"])
    assert exported.training_summary == {
        "name": "test",
        "step": 3,
        "samples": 12,  # 3 batches of 4
        "image_size": 16,
        "crop": "resize",
        "metrics": {"val/psnr": 12.0, "val/ssim": -12.0},
    }


def test_a_resumed_run_knows_the_best_and_the_samples_before_it(
    train: Train,
    make_module: MakeModule,
    make_data: MakeData,
    make_validation: Callable[..., Validation],
    fit: Callable[..., None],
    tmp_path: Path,
) -> None:
    train({2: 12.0}, max_steps=2)
    checkpoint = read(tmp_path / "checkpoints/last.ckpt")
    data = make_data(start=checkpoint["training"]["samples"])
    validation = make_validation(data)
    checkpointing = Checkpointing(
        run_dir=tmp_path,
        config={"name": "test"},
        data=data,
        callbacks={},
        resumed=checkpoint["training"],
    )
    assert checkpointing.results == {"val/psnr": 12.0, "val/ssim": -12.0}
    files = Files(tmp_path)

    class Restore(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            del trainer
            restore(cast(TokenizerTraining, pl_module), checkpoint)

    end_step = scripted(checkpointing, validation, {4: 11.0})
    fit(make_module(max_steps=4), Restore(), end_step, files, data=data)
    assert files.seen.keys() == {3, 4}
    assert files.seen[4] == {"best.ckpt": 2, "last.ckpt": 4, step(2): 2, step(4): 4, "tokenizer": 4}
    assert read(tmp_path / "checkpoints/last.ckpt")["training"]["samples"] == 16


def test_a_second_name_is_a_link_and_moves_whole(tmp_path: Path) -> None:
    first, second, name = (tmp_path / part for part in ("first", "second", "name"))
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    for file in (first, second):
        link(file, name)
        assert name.samefile(file)
    assert first.read_bytes() == b"1"
    assert len(list(tmp_path.iterdir())) == 3


def test_where_links_cannot_be_had_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    first, second, name = (tmp_path / part for part in ("first", "second", "name"))
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    for file in (first, second):
        link(file, name)
        assert name.read_bytes() == file.read_bytes()
        assert not name.samefile(file)
    first.unlink()
    assert name.read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name", "second"]


def test_a_tokenizer_without_training_state_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    file = tmp_path / "step_00000001.ckpt"
    torch.save({"tokenizer": {"config": {}, "weights": {}}}, file)
    with pytest.raises(CheckpointError, match=f"cannot continue from {file}: it holds no training"):
        read(file)
