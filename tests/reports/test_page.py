"""What a folder is, and where its page goes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.reports.page import kind_of, write

MakeRun = Callable[..., Path]
MakeSweep = Callable[..., Path]


def test_each_kind_of_folder_gets_its_page(
    make_run: MakeRun, make_sweep: MakeSweep, evaluation: Path, probe: Path
) -> None:
    run, sweep = make_run("run"), make_sweep(kinds=1, sizes=1)
    assert write(run) == run / "report.html"
    assert write(sweep) == sweep / "sweep.html"
    assert write(evaluation) == evaluation / "report.html"
    assert write(probe) == probe / "report.html"
    for file, word in ((run / "report.html", "Training run"), (sweep / "sweep.html", "Sweep")):
        assert f'<p class="kind">{word}</p>' in file.read_text()
    assert [kind_of(folder) for folder in (run, sweep, evaluation, probe)] == [
        *("run", "sweep", "evaluation", "probe"),
    ]


def test_a_link_to_a_run_is_that_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run")
    (tmp_path / "latest").symlink_to(run)
    write(tmp_path / "latest")
    assert (run / "report.html").is_file()


def test_a_page_is_made_anew_but_a_given_file_is_never_replaced(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run, out = make_run("run"), tmp_path / "mine.html"
    (run / "report.html").write_text("old")
    write(run)
    assert (run / "report.html").read_text() != "old"
    assert write(run, out=out) == out
    with pytest.raises(ConfigError, match=r"out=.*mine\.html exists already"):
        write(run, out=out)


@pytest.mark.slow
def test_a_long_run_stays_far_below_5_mb(make_run: MakeRun) -> None:
    file = write(make_run("run", steps=500_000, every=50))
    assert file.stat().st_size < 2_000_000


def test_another_run_is_compared(make_run: MakeRun) -> None:
    run, other = make_run("one"), make_run("two", "optim.lr=0.5")
    html = write(run, other=other).read_text()
    assert "Only differing keys" in html


def test_folders_that_are_no_such_thing_are_refused(
    make_run: MakeRun, make_sweep: MakeSweep, tmp_path: Path
) -> None:
    run, sweep = make_run("run"), make_sweep(kinds=1, sizes=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "file").touch()
    cases = [
        (empty, {}, "is not a run, a sweep, an evaluation or a probe: a run"),
        (tmp_path / "nowhere", {}, "nowhere does not exist"),
        (empty / "file", {}, "is a file"),
        (run, {"other": empty}, "other=.*empty is not a run directory"),
        (sweep, {"other": run}, "compares runs"),
        (run, {"limit": 0}, "limit must be at least 1, got 0"),
    ]
    for path, options, message in cases:
        with pytest.raises(ConfigError, match=message):
            write(path, **options)
    (empty / "latest").symlink_to(run)
    with pytest.raises(ConfigError, match=r"did you mean .*empty/latest"):
        write(empty)


def test_a_folder_that_cannot_be_written_is_one_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        write(make_run("run"), out=tmp_path / "file/page.html")


def test_results_with_holes_are_one_sentence(make_sweep: MakeSweep, evaluation: Path) -> None:
    sweep = make_sweep(kinds=1, sizes=1)
    plain = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps({**plain, "axes": None}))
    (evaluation / "evaluation.json").write_text('{"tokenizers": [3]}')
    for folder in (sweep, evaluation):
        with pytest.raises(ConfigError, match="cannot read the results in"):
            write(folder)
