"""What came of runs: read from their folders, averaged over seeds, and which are ahead."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from vqtrain.metrics.parts import declarations
from vqtrain.sweeps.job import write_failure
from vqtrain.sweeps.results import (
    Point,
    Spread,
    collect,
    frontier,
    label_of,
    points_of,
    read_axes,
    read_evaluation,
    read_sweep,
    save,
)

CODEBOOK = {
    "num_codebooks": 1,
    "size": 16,
    "tokens": 10_000,
    "ids_seen": [12],
    "usage": 0.75,
    "perplexity": 9.5,
    "top1_share": 0.5,
    "entropy_bits": 3.2,
    "histogram": [[1]],
}
ENTRY = {
    "image_size": 64,
    "tokens_per_image": 256,
    "bits_per_pixel": 0.25,
    "metrics": {"psnr": 21.5, "rfid@16": None},
    "codebook": CODEBOOK,
}


def evaluate(job, **changes: object) -> None:
    """Leave an evaluation in a run's folder."""
    job.evaluation.mkdir(parents=True)
    content = {"tokenizers": [{**ENTRY, **changes}]}
    (job.evaluation / "evaluation.json").write_text(json.dumps(content))


def collected(folder: Path, *jobs, states=None):
    axes = {"seed": list(range(len(jobs)))}
    return collect(jobs, command="vqtrain sweep", axes=axes, sweep_dir=folder, states=states or {})


def test_a_run_that_finished_has_its_figures(make_job, tmp_path: Path) -> None:
    job = make_job("a", kind="ema", seed=3)
    evaluate(job)
    (job.run_dir / "log.txt").write_text(
        "2026-03-01 10:00:00 vqtrain 0.1.0, torch 2.11\n2026-03-01 10:00:30 done\n"
    )
    result = collected(tmp_path, job, states={"a": ("running", None, "")})
    (found,) = result.jobs
    assert (found.name, found.kind, found.run_dir) == ("a", "ema", "jobs/a")
    assert (found.state, found.code, found.reason) == ("finished", 0, "")
    assert (found.image_size, found.tokens_per_image, found.bits_per_pixel) == (64, 256, 0.25)
    assert found.metrics == {"psnr": 21.5}  # what is no number is not there
    assert found.codebook == {"ids": 16, "usage": 0.75, "perplexity": 9.5, "entropy_bits": 3.2}
    assert (found.parameters, found.gflops, found.train_seconds) == (1_000, 2.5, 30)
    assert found.values == {"seed": 3}
    assert result.is_whole


def test_without_an_evaluation_a_run_is_what_is_known_of_it(make_job, tmp_path: Path) -> None:
    jobs = [make_job(name) for name in "abc"]
    jobs[2].evaluation.mkdir(parents=True)  # was interrupted
    states = {"b": ("running", None, ""), "c": ("interrupted", 130, "Ctrl-C")}
    result = collected(tmp_path, *jobs, states=states)
    assert [(job.state, job.code, job.reason) for job in result.jobs] == [
        ("waiting", None, ""),
        ("running", None, ""),
        ("interrupted", 130, "Ctrl-C"),
    ]
    assert [job.metrics for job in result.jobs] == [{}, {}, {}]
    assert result.jobs[0].bits_per_pixel is None
    assert result.points == []
    assert result.metrics == []
    assert not result.is_whole


def test_a_failure_counts_more_than_figures(make_job, tmp_path: Path) -> None:
    job, other = make_job("a"), make_job("b")
    for each in (job, other):
        evaluate(each)
    write_failure(job.run_dir, code=1, reason="out of memory")
    result = collected(tmp_path, job, other)
    failed, finished = result.jobs
    assert (failed.state, failed.code, failed.reason) == ("failed", 1, "out of memory")
    assert (failed.metrics, failed.codebook, failed.image_size) == ({}, None, None)
    assert finished.state == "finished"
    assert not result.is_whole


def test_a_run_that_is_to_be_probed_is_finished_once_it_is(
    make_job, write_probe_of, tmp_path: Path
) -> None:
    jobs = [make_job("a", seed=0), make_job("b", seed=1), make_job("kl", seed=2, has_ids=False)]
    for job in jobs:
        evaluate(job)
    write_probe_of(jobs[0], entropy=0.5, transformer=0.25, perturbed=[20.0])
    write_probe_of(jobs[1], entropy=0.75, perturbed=[18.0])

    def collected_with(stages: list[str]):
        states = {"b": ("interrupted", 130, "Ctrl-C")}
        axes = {"seed": [0, 1, 2]}
        words = {"command": "x", "axes": axes, "sweep_dir": tmp_path, "states": states}
        return collect(jobs, **words, stages=stages)

    # Figures that are there are shown, whether they were asked for or not.
    whole = collected_with([])
    assert [job.state for job in whole.jobs] == ["finished"] * 3
    assert whole.jobs[0].probe == {
        "entropy_bits_per_pixel": 0.5,
        "probe_bits_per_pixel": 0.25,
        "perturbed_psnr": 20.0,
    }
    assert whole.jobs[2].probe == {}
    assert whole.points[0].probe == {}  # one of its seeds has none
    (point,) = points_of(whole.jobs[:2])
    assert point.probe == {
        "entropy_bits_per_pixel": Spread(mean=0.625, low=0.5, high=0.75),
        "perturbed_psnr": Spread(mean=19.0, low=18.0, high=20.0),
    }
    assert point.figure("perturbed_psnr") == point.probe["perturbed_psnr"]
    assert whole.model_rate == "probe_bits_per_pixel"
    # What lacks a stage has its figures, but has not finished.
    partial = collected_with(["entropy", "transformer"])
    assert [job.state for job in partial.jobs] == ["finished", "interrupted", "finished"]
    assert partial.jobs[1].metrics == {"psnr": 21.5}
    assert not partial.is_whole
    save(partial, tmp_path)
    assert read_sweep(tmp_path).jobs == partial.jobs
    write_failure(jobs[0].run_dir, code=1, reason="no memory left")
    assert collected_with([]).jobs[0].probe == {}


@pytest.mark.parametrize(
    ("perplexity", "tokens", "state"),
    [
        (1.7, 10_000, "finished"),
        (1.5, 10_000, "collapsed"),  # less than a tenth of 16
        # 8 tokens of 16 ids show 16 (1 - exp(-1/2)) = 6.3 of them.
        (0.7, 8, "finished"),
        (0.6, 8, "collapsed"),
    ],
)
def test_a_codebook_that_is_hardly_used_is_said(
    make_job, tmp_path: Path, perplexity: float, tokens: int, state: str
) -> None:
    job = make_job()
    codebook = {**CODEBOOK, "perplexity": perplexity, "tokens": tokens, "ids_seen": [2, 1]}
    evaluate(job, codebook=codebook)
    result = collected(tmp_path, job)
    (found,) = result.jobs
    assert found.state == state
    if state == "collapsed":
        assert found.reason == f"3 ids occur, unevenly: perplexity {perplexity} of 16"
    # Its figures are as good as any.
    assert result.is_whole
    assert [point.jobs for point in result.points] == [["job"]]


def test_a_continuous_codebook_has_neither_rate_nor_use(make_job, tmp_path: Path) -> None:
    job = make_job(kind="kl")
    evaluate(job, codebook=None, bits_per_pixel=None, tokens_per_image=0)
    result = collected(tmp_path, job)
    assert (result.jobs[0].state, result.jobs[0].codebook) == ("finished", None)
    (point,) = result.points
    assert (point.bits_per_pixel, point.usage) == (None, None)
    assert point.metrics == {"psnr": Spread(mean=21.5, low=21.5, high=21.5)}


def test_use_of_large_codebooks_is_labelled_otherwise(make_job, tmp_path: Path) -> None:
    job = make_job()
    large = {name: value for name, value in CODEBOOK.items() if name != "usage"}
    evaluate(job, codebook={**large, "usage@tokens": 0.5})
    result = collected(tmp_path, job)
    assert result.jobs[0].codebook == {
        "ids": 16,
        "usage@tokens": 0.5,
        "perplexity": 9.5,
        "entropy_bits": 3.2,
    }
    assert result.points[0].usage is None


@pytest.mark.parametrize(
    "content", [b"", b'{"tokenizers": [{"met', b"[]", b"{}", b'{"tokenizers": []}', b'"\xff"']
)
def test_a_damaged_evaluation_is_none(tmp_path: Path, content: bytes) -> None:
    assert read_evaluation(tmp_path) is None
    (tmp_path / "evaluation.json").write_bytes(content)
    assert read_evaluation(tmp_path) is None


def test_figures_of_seeds_are_averaged(make_result) -> None:
    rate = 0.5
    jobs = [
        make_result(
            f"{kind}{seed}",
            values={"codebook": kind, "seed": seed},
            rate=rate,
            psnr=psnr,
            usage=usage,
            seconds=seconds,
        )
        for kind, seed, psnr, usage, seconds in [
            ("ema", 0, 20.0, 0.5, 10.0),
            ("vq", 0, 18.0, 1.0, 7.0),
            ("ema", 1, 22.0, 0.25, 12.0),
            ("ema", 2, 27.0, 0.75, None),
        ]
    ]
    ema, vq = points_of(jobs)
    assert ema.values == {"codebook": "ema"}
    assert (ema.label, ema.kind, ema.jobs) == ("ema", "ema", ["ema0", "ema1", "ema2"])
    assert ema.metrics == {"psnr": Spread(mean=23.0, low=20.0, high=27.0)}
    assert ema.usage == Spread(mean=0.5, low=0.25, high=0.75)
    assert ema.train_seconds == Spread(mean=11.0, low=10.0, high=12.0)
    assert vq.metrics == {"psnr": Spread(mean=18.0, low=18.0, high=18.0)}
    assert (ema.frontier, vq.frontier) == (["psnr"], [])


@pytest.mark.parametrize("value", [0.1, 0.7, 1e-7, 21.3337, 0.9961])
@pytest.mark.parametrize("count", [1, 3, 6, 7, 10])
def test_equal_figures_have_no_spread(make_result, value: float, count: int) -> None:
    jobs = [
        make_result(str(seed), values={"seed": seed}, rate=0.5, psnr=value) for seed in range(count)
    ]
    (point,) = points_of(jobs)
    assert point.metrics["psnr"] == Spread(mean=value, low=value, high=value)


def test_the_mean_is_never_beyond_the_least_and_the_greatest(make_result) -> None:
    values = [0.1, 0.1, math.nextafter(0.1, 0)]
    jobs = [make_result(str(n), values={"seed": n}, rate=1.0, psnr=v) for n, v in enumerate(values)]
    spread = points_of(jobs)[0].metrics["psnr"]
    assert spread.low <= spread.mean <= spread.high


def test_a_seed_that_failed_leaves_the_others(make_result) -> None:
    jobs = [
        make_result("a", values={"seed": 0}, state="failed", code=1),
        make_result("b", values={"seed": 1}, rate=0.5, psnr=20.0),
        make_result("c", values={"seed": 2}, rate=0.5, psnr=10.0, state="collapsed"),
        make_result("d", values={"seed": 3}, state="interrupted"),
    ]
    (point,) = points_of(jobs)
    assert point.jobs == ["b", "c"]
    assert point.metrics["psnr"] == Spread(mean=15.0, low=10.0, high=20.0)
    assert point.label == "vq"  # no axis but the seed
    assert points_of([jobs[0], jobs[3]]) == []


def test_a_metric_that_a_seed_lacks_is_left_out(make_result) -> None:
    jobs = [
        make_result("a", values={"seed": 0}, rate=1.0, psnr=2.0, metrics={"psnr": 2.0, "ssim": 1}),
        make_result("b", values={"seed": 1}, rate=1.0, psnr=4.0),
    ]
    (point,) = points_of(jobs)
    assert point.metrics == {"psnr": Spread(mean=3.0, low=2.0, high=4.0)}


def test_values_that_are_lists_make_points_of_their_own(make_result) -> None:
    lists = [[0.5, 0.9], [0.9, 0.99], [0.5, 0.9]]
    jobs = [
        make_result(str(seed), values={"optim.betas": betas, "seed": seed}, rate=1.0, psnr=2.0)
        for seed, betas in enumerate(lists)
    ]
    first, second = points_of(jobs)
    assert (first.jobs, second.jobs) == (["0", "2"], ["1"])
    assert first.label == "optim.betas=[0.5, 0.9]"


def test_a_label_names_the_kind_first_of_all() -> None:
    values = {"codebook": "ema", "codebook.size": 64, "encoder": "cnn"}
    assert label_of(values) == "ema, codebook.size=64, encoder=cnn"
    assert label_of({}) == ""


def points(make_result, *pairs: tuple[float | None, float], metric: str = "psnr") -> list[Point]:
    """Points of a rate and a figure."""
    return points_of(
        [
            make_result(str(n), values={"n": n}, rate=rate, psnr=figure, metrics={metric: figure})
            for n, (rate, figure) in enumerate(pairs)
        ]
    )


@pytest.mark.parametrize(
    ("pairs", "ahead"),
    [
        # More bits for a better figure, and one that pays more for less.
        ([(0.25, 20.0), (0.5, 22.0), (0.75, 21.0), (1.0, 23.0)], {0, 1, 3}),
        # The same rate: the better one alone. The same figure: the cheaper one alone.
        ([(0.5, 20.0), (0.5, 21.0)], {1}),
        ([(0.5, 20.0), (0.25, 20.0)], {1}),
        # Equal in both: both.
        ([(0.5, 20.0), (0.5, 20.0), (0.6, 20.0)], {0, 1}),
        # Without a rate: neither on it nor in the way of others.
        ([(None, 30.0), (0.5, 20.0)], {1}),
        ([(None, 30.0)], set()),
        ([(0.5, 20.0)], {0}),
        ([], set()),
    ],
)
def test_the_frontier_is_what_none_beats_at_no_more_bits(make_result, pairs, ahead) -> None:
    assert frontier(points(make_result, *pairs), "psnr") == ahead
    # Of a distance, all figures the other way round.
    mirrored = [(rate, -figure) for rate, figure in pairs]
    assert frontier(points(make_result, *mirrored, metric="rfid@16"), "rfid@16") == ahead


def test_the_frontier_of_another_rate(make_result) -> None:
    figures = [(0.5, 0.3, 20.0), (0.4, 0.35, 21.0), (0.6, 0.2, 19.0)]
    found = points_of(
        [
            make_result(str(n), values={"n": n}, rate=raw, psnr=psnr, probe={"model": rate})
            for n, (raw, rate, psnr) in enumerate(figures)
        ]
    )
    assert frontier(found, "psnr") == {1}
    assert frontier(found, "psnr", rate="model") == {0, 1, 2}
    assert frontier(found, "psnr", rate="missing") == set()


def test_a_point_without_the_metric_is_not_ahead(make_result) -> None:
    both = points(make_result, (0.5, 20.0), (0.4, 30.0))
    both[1] = replace(both[1], metrics={})
    assert frontier(both, "psnr") == {0}
    assert frontier(both, "ssim") == set()


def test_the_direction_of_a_metric_from_outside_is_what_the_evaluation_says(
    make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job("a", n=1), make_job("b", n=2)]
    for job, error in zip(jobs, (1.0, 2.0), strict=True):
        protocols = {"mean_absolute": {"better": "lower"}}
        evaluate(job, metrics={"mean_absolute": error}, protocols=protocols)
    monkeypatch.setattr(declarations, "_learned", {})
    result = collected(tmp_path, *jobs)
    assert [point.frontier for point in result.points] == [["mean_absolute"], []]
    save(result, tmp_path)
    monkeypatch.setattr(declarations, "_learned", {})
    read_sweep(tmp_path)
    assert declarations.declaration("mean_absolute").lower_is_better


def test_the_file_holds_all_of_it(make_job, tmp_path: Path) -> None:
    jobs = [make_job("a", seed=0), make_job("b", seed=1)]
    evaluate(jobs[0], metrics={"psnr": 20.0, "rfid@16": 3.5})
    save(collected(tmp_path, *jobs), tmp_path)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert (content["format"], content["version"]) == ("vqtrain-sweep", 1)
    assert content["command"] == "vqtrain sweep"
    assert content["axes"] == {"seed": [0, 1]}
    assert content["metrics"] == {"psnr": "higher", "rfid@16": "lower"}
    assert [job["state"] for job in content["jobs"]] == ["finished", "waiting"]
    assert content["jobs"][0]["metrics"] == {"psnr": 20.0, "rfid@16": 3.5}
    (point,) = content["points"]
    assert point["metrics"]["psnr"] == {"mean": 20.0, "low": 20.0, "high": 20.0}
    assert point["frontier"] == ["psnr", "rfid@16"]
    assert point["train_seconds"] is None
    assert read_axes(tmp_path) == ["seed"]


@pytest.mark.parametrize("content", [b"", b'{"axes": {"a', b"[]", b"{}", b'{"axes": 1}', b"\xff"])
def test_a_folder_without_a_sweep_has_no_axes(tmp_path: Path, content: bytes) -> None:
    assert read_axes(tmp_path) is None
    (tmp_path / "sweep.json").write_bytes(content)
    assert read_axes(tmp_path) is None


def test_a_point_counts_its_collapsed_seeds(make_result) -> None:
    jobs = [
        make_result(str(seed), values={"seed": seed}, rate=0.5, psnr=20.0, state=state)
        for seed, state in enumerate(["finished", "collapsed", "collapsed", "failed"])
    ]
    (point,) = points_of(jobs)
    assert (point.collapsed, point.jobs) == (2, ["0", "1", "2"])
