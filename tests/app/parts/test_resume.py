"""What the configuration of a resumed run is made of."""

import copy
from typing import Any

import pytest

from vqtrain.app.parts.compose import compose, flatten, read_command_line
from vqtrain.app.parts.resume import FREE, WARNED, continued_config
from vqtrain.errors import CheckpointError

SAVED = ["codebook=vq", "codebook.size=64", "data.train=/a b/{0..9}.tar", "name=first", "seed=3"]


def saved() -> dict[str, Any]:
    return compose("train", read_command_line(SAVED))


def resumed(*words: str) -> tuple[dict[str, Any], list[str]]:
    line = read_command_line(["resume=auto", *words])
    return continued_config(line, saved())


def changes(config: dict[str, Any]) -> dict[str, object]:
    before = flatten(saved())
    return {key: value for key, value in flatten(config).items() if before[key] != value}


def test_resume_alone_goes_on_with_what_was() -> None:
    # The command line by itself describes a run with codebook=ema on the demo.
    assert resumed() == (saved(), [])


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("run_dir=/else where/x=1", "run_dir", "/else where/x=1"),
        ("name='my run'", "name", "my run"),
        ("data.num_workers=7", "data.num_workers", 7),
        ("trainer.log_every=7", "trainer.log_every", 7),
        ('trainer.validate_every="20%"', "trainer.validate_every", "20%"),
        ("trainer.checkpoint_every=7", "trainer.checkpoint_every", 7),
    ],
)
def test_what_changes_no_number_may_change(word: str, key: str, value: object) -> None:
    assert key in FREE
    config, warnings = resumed(word)
    assert changes(config) == {key: value}
    assert warnings == []


@pytest.mark.parametrize(
    ("word", "warning"),
    [
        ("trainer.max_steps=20000", "trainer.max_steps was 10000 and is now 20000"),
        ("trainer.compile=true", "trainer.compile was False and is now True"),
        ("optim.lr=1.0", "optim.lr was 0.0002 and is now 1.0"),
        ("data.batch_size=1", "data.batch_size was 32 and is now 1"),
    ],
)
def test_what_makes_it_another_run_is_warned_of(word: str, warning: str) -> None:
    config, warnings = resumed(word, "trainer.log_every=7")
    assert changes(config).keys() == {word.partition("=")[0], "trainer.log_every"}
    assert word.partition("=")[0] in WARNED
    assert [line.partition(":")[0] for line in warnings] == [warning]


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("codebook.size=32", "codebook.size (64 -> 32)"),
        ("seed=4", "seed (3 -> 4)"),
        ("trainer.precision=64-true", "trainer.precision (32-true -> 64-true)"),
        ("trainer.ema_decay=0", "trainer.ema_decay (0.999 -> 0)"),
        ("init_from=/x", "init_from (None -> /x)"),
    ],
)
def test_all_else_is_refused(word: str, change: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        resumed(word, "trainer.log_every=7")
    assert str(raised.value).startswith(f"a resumed run cannot change {change}: start a new run")
    assert "init_from=PATH" in str(raised.value)


def test_a_value_that_is_repeated_is_no_change() -> None:
    words = ["codebook.size=64", "data.train=/a b/{0..9}.tar", "seed=3", "optim.betas=[0.9,0.99]"]
    assert resumed(*words) == (saved(), [])


def test_with_a_group_the_command_line_must_describe_the_same_run() -> None:
    assert resumed(*SAVED) == (saved(), [])
    config, _ = resumed(*SAVED, "trainer.log_every=7")
    assert changes(config) == {"trainer.log_every": 7}
    with pytest.raises(CheckpointError, match=r"cannot change codebook\.size \(64 -> 1024\)"):
        resumed(*SAVED[:1], *SAVED[2:])


def test_of_many_refused_changes_three_are_named() -> None:
    # What follows from another kind is not named.
    with pytest.raises(
        CheckpointError, match=r"change codebook\.kind \(vq -> ema\), seed"
    ) as raised:
        resumed("codebook=ema")
    assert "codebook_weight" not in str(raised.value)
    words = [
        "seed=4",
        "trainer.clip=9",
        "data.flip=false",
        "data.crop=native",
        "data.channels=1",
    ]
    with pytest.raises(CheckpointError) as raised:
        resumed(*words)
    assert str(raised.value).count(" -> ") == 3
    assert " and 2 more: " in str(raised.value)


def test_what_was_saved_stays_as_it_is() -> None:
    before = saved()
    kept = copy.deepcopy(before)
    line = read_command_line(["resume=auto", "trainer.log_every=7", "run_dir=x"])
    config, _ = continued_config(line, before)
    assert before == kept
    assert config["resume"] is None
