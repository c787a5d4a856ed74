"""Names of runs, what is left of one that failed, and how long one has trained."""

import re
from pathlib import Path

import pytest

from vqtrain.sweeps.job import FAILURE, name_jobs, read_failure, training_seconds, write_failure

GROUPS = ["codebook", "loss/perceptual"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"codebook": "ema", "codebook.size": 64, "seed": 0}, "ema_size64_seed0"),
        ({"loss/perceptual": "lpips", "experiment": "demo"}, "lpips_experimentdemo"),
        ({"codebook.inner": "fsq"}, "innerfsq"),
        ({"optim.lr": 0.1, "optim.d.lr": 1e-5}, "optim-lr0.1_optim-d-lr1e-05"),
        ({"optim.lr": 0.1, "a.lr": 2, "seed": 1}, "optim-lr0.1_a-lr2_seed1"),
        ({"optim.betas": [0.5, 0.9], "seed": 1}, "betas-0.5-0.9-_seed1"),
        ({"optim.betas": [0.5, 0.9]}, "betas-0.5-0.9"),
        ({"trainer.max_time": None, "trainer.compile": True}, "max_timeNone_compileTrue"),
        ({"optim.schedule": "../a b\\c:d*\xe9$\n{x}"}, "schedule..-a-b-c-d-x"),
        ({"codebook.weight": -1}, "weight-1"),
    ],
)
def test_a_name_is_short_and_can_be_a_folder(values: dict[str, object], name: str) -> None:
    assert name_jobs([values], GROUPS) == [name]


@pytest.mark.parametrize("value", ["..", ".", "/", "-", "\xe9", ""])
def test_a_value_of_which_no_letter_is_left_has_a_name_all_the_same(value: str) -> None:
    (name,) = name_jobs([{"codebook": value}], GROUPS)
    assert re.fullmatch(r"_[0-9a-f]{8}", name)


def test_a_long_name_is_cut_and_still_its_own() -> None:
    values = [{"a.schedule": "x" * 200 + last} for last in "ab"]
    first, second = name_jobs(values, GROUPS)
    assert first != second
    for name in (first, second):
        assert re.fullmatch("schedule" + "x" * 92 + "_[0-9a-f]{8}", name)
    # 100 characters are not too long.
    assert name_jobs([{"schedule": "x" * 92}], GROUPS) == ["schedule" + "x" * 92]


def test_values_that_look_alike_have_names_of_their_own() -> None:
    values = ["a/b", "a-b", "a b", "a-b-", 1, "1", 1.0, True, "True", [1, 2], "-1-2"]
    names = name_jobs([{"a.key": value} for value in values], GROUPS)
    assert names[0] == "keya-b"
    assert re.fullmatch(r"keya-b_[0-9a-f]{8}", names[1])
    assert names[4] == "key1"
    assert names[9] == "key-1-2"
    assert len(set(names)) == len(values)
    # Of groups, no key tells where one value ends.
    pairs = [{"codebook": "a_b", "encoder": "c"}, {"codebook": "a", "encoder": "b_c"}]
    first, second = name_jobs(pairs, ["codebook", "encoder"])
    assert (first, second[:6]) == ("a_b_c", "a_b_c_")


def test_names_do_not_change_when_values_are_added() -> None:
    few = name_jobs([{"seed": seed} for seed in (0, 1)], GROUPS)
    assert name_jobs([{"seed": seed} for seed in (0, 1, 2)], GROUPS)[:2] == few


def test_a_job_knows_what_its_configuration_says(make_job, tmp_path: Path) -> None:
    job = make_job("a", kind="fsq", max_steps=7)
    assert (job.kind, job.devices, job.max_steps) == ("fsq", 2, 7)
    assert job.evaluation == tmp_path / "jobs/a/evaluation"


def test_a_failure_is_kept_until_it_is_deleted(tmp_path: Path) -> None:
    run_dir = tmp_path / "not yet there"
    assert read_failure(run_dir) is None
    write_failure(run_dir, code=1, reason='\xe9 "quoted"')
    assert read_failure(run_dir) == (1, '\xe9 "quoted"')
    assert [file.name for file in run_dir.iterdir()] == [FAILURE]
    (run_dir / FAILURE).unlink()
    assert read_failure(run_dir) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"code": 1, "reas',
        b"[1]",
        b"null",
        b"3",
        b'{"code": 1}',
        b'{"reason": "x"}',
        b'{"code": null, "reason": "x"}',
        b'{"code": "one", "reason": "x"}',
        b'{"code": 1, "reason": "\xff"}',
    ],
)
def test_a_damaged_failure_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FAILURE).write_bytes(content)
    assert read_failure(tmp_path) is None


def log(run_dir: Path, *lines: str, ending: bytes = b"\n") -> None:
    text = "\n".join(f"2026-03-01 {line}" for line in lines).encode()
    (run_dir / "log.txt").write_bytes(text + ending)


FIRST = "vqtrain 0.1.0, torch 2.11.0, lightning 2.6.1, python 3.12.3"
DIRECTORY = "run directory: jobs/a"


def test_training_is_from_the_first_to_the_last_line_of_each_call(tmp_path: Path) -> None:
    log(tmp_path, f"10:00:00 {FIRST}", f"10:00:01 {DIRECTORY}", "10:01:30 step 50/100")
    assert training_seconds(tmp_path) == 90
    # What is between the calls is no training, and no more is what comes after midnight lost.
    log(
        tmp_path,
        f"10:00:00 {FIRST}",
        f"10:00:01 {DIRECTORY}",
        "10:01:30 step 50/100",
        f"23:00:00 {FIRST}",
        f"23:00:02 {DIRECTORY}",
        "23:00:02 resuming at step 50",
        "23:00:07 step 100/100",
    )
    assert training_seconds(tmp_path) == 90 + 7


def test_an_hour_that_comes_twice_counts_once(tmp_path: Path) -> None:
    log(tmp_path, f"02:59:00 {FIRST}", "02:59:50 step", "02:00:10 step", "02:00:40 step")
    assert training_seconds(tmp_path) == 50 + 30


def test_a_line_of_other_times_or_none_is_passed_over(tmp_path: Path) -> None:
    log(tmp_path, f"10:00:00 {FIRST}", "10:00:09 warning: a\nsecond line", "10:00:10 done")
    assert training_seconds(tmp_path) == 10


@pytest.mark.parametrize(
    "ending", [b"\n2026-03-01 10:0", b"\n2026-", b"\n2026-03-01 10:01:30 images: \xc3", b"\n\0\0\0"]
)
def test_a_cut_line_costs_no_other(tmp_path: Path, ending: bytes) -> None:
    log(tmp_path, f"10:00:00 {FIRST}", "10:01:30 step 50/100", ending=ending)
    assert training_seconds(tmp_path) == 90


def test_a_call_after_a_cut_line_begins_anew(tmp_path: Path) -> None:
    log(tmp_path, f"10:00:00 {FIRST}", "10:00:10 step", ending=b"\n2026-03-01 10:")
    with (tmp_path / "log.txt").open("a") as file:
        # The next call goes on in the middle of the line.
        file.write(f"2026-03-01 12:00:00 {FIRST}\n2026-03-01 12:00:01 {DIRECTORY}\n")
        file.write("2026-03-01 12:00:05 step\n")
    assert training_seconds(tmp_path) == 10 + 5


def test_without_a_log_or_a_line_there_is_no_time(tmp_path: Path) -> None:
    assert training_seconds(tmp_path) is None
    log(tmp_path, "not a time", "10:00:00 step 1")
    assert training_seconds(tmp_path) is None
