"""A sweep as CSV, Parquet and a table in the terminal."""

import csv
import io
from pathlib import Path

import pytest
from pyarrow import parquet
from rich.console import Console

from vqtrain.sweeps.results import SweepResult, points_of
from vqtrain.sweeps.tables import rows_of, save_tables, show, tally


def sweep(*jobs, **axes: list[object]) -> SweepResult:
    found = {key.replace("__", "."): values for key, values in axes.items()}
    return SweepResult(command="x", axes=found, jobs=jobs, points=points_of(jobs))


AGAIN = "            a failed run runs again once its failed.json is deleted"


@pytest.fixture
def mixed(make_result) -> SweepResult:
    """Two seeds of one kind, a continuous one, one that failed, one that waits."""

    def values(codebook: str, seed: int) -> dict[str, object]:
        return {"codebook": codebook, "seed": seed}

    return sweep(
        make_result("ema0", values=values("ema", 0), rate=0.5, psnr=20.0, usage=0.5, seconds=8.0),
        make_result("ema1", values=values("ema", 1), rate=0.5, psnr=21.0, usage=0.75, seconds=9.0),
        make_result("kl0", values=values("kl", 0), psnr=30.125, seconds=12.4),
        make_result(
            "kl1", values=values("kl", 1), state="failed", code=1, reason='lost, "quoted"\nand more'
        ),
        make_result("vq0", values=values("vq", 0)),
        codebook=["ema", "kl", "vq"],
        seed=[0, 1],
    )


COLUMNS = [
    *("name", "state", "code", "reason", "codebook", "seed", "kind"),
    *("image_size", "tokens_per_image", "bits_per_pixel", "psnr", "usage", "perplexity"),
    *("parameters", "gflops", "train_seconds", "frontier", "run_dir"),
]


def test_csv_holds_a_row_for_each_run(mixed: SweepResult, tmp_path: Path) -> None:
    save_tables(mixed, tmp_path)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["name"] for row in rows] == ["ema0", "ema1", "kl0", "kl1", "vq0"]
    assert [row["psnr"] for row in rows] == ["20.0", "21.0", "30.125", "", ""]
    assert [row["bits_per_pixel"] for row in rows] == ["0.5", "0.5", "", "", ""]
    assert [row["usage"] for row in rows] == ["0.5", "0.75", "", "", ""]
    assert [row["code"] for row in rows] == ["0", "0", "0", "1", ""]
    assert [row["frontier"] for row in rows] == ["psnr", "psnr", "", "", ""]
    assert rows[3]["reason"] == 'lost, "quoted"\nand more'
    assert rows[4]["state"] == "waiting"


def test_parquet_holds_the_same_with_types(mixed: SweepResult, tmp_path: Path) -> None:
    save_tables(mixed, tmp_path)
    table = parquet.read_table(tmp_path / "sweep.parquet")
    assert table.column_names == COLUMNS
    assert table.to_pylist() == rows_of(mixed)
    assert table.column("psnr").to_pylist() == [20.0, 21.0, 30.125, None, None]
    assert str(table.schema.field("seed").type) == "int64"
    assert str(table.schema.field("train_seconds").type) == "double"


@pytest.mark.parametrize(
    ("values", "expected", "in_csv"),
    [
        ([1, 2], [1, 2], ["1", "2"]),
        ([1, 0.5], [1.0, 0.5], ["1", "0.5"]),
        ([None, 2], [None, 2], ["", "2"]),
        ([None, None], [None, None], ["", ""]),
        ([True, False], [True, False], ["True", "False"]),
        ([True, 2], ["True", "2"], ["True", "2"]),
        (["10%", 5, None], ["10%", "5", None], ["10%", "5", ""]),
        # A fraction has 53 bits.
        ([2**53 + 1, 0.5], [2.0**53, 0.5], [str(2**53 + 1), "0.5"]),
        ([[0.5, 0.9], [0.9, 0.99]], ["[0.5, 0.9]", "[0.9, 0.99]"], ["[0.5, 0.9]", "[0.9, 0.99]"]),
        ([{"a": 1}, None], ["{'a': 1}", None], ["{'a': 1}", ""]),
        # LFQ has up to 2^63 codes, one more than Parquet's integers.
        ([2, 2**63], ["2", str(2**63)], ["2", str(2**63)]),
        ([2**63 - 1, 3], [2**63 - 1, 3], [str(2**63 - 1), "3"]),
    ],
)
def test_values_of_any_type_come_back(make_result, tmp_path: Path, values, expected, in_csv):
    jobs = [make_result(str(n), values={"a.key": value}) for n, value in enumerate(values)]
    save_tables(sweep(*jobs, a__key=values), tmp_path)
    assert parquet.read_table(tmp_path / "sweep.parquet").column("a.key").to_pylist() == expected
    with (tmp_path / "sweep.csv").open(newline="") as file:
        assert [row["a.key"] for row in csv.DictReader(file)] == in_csv


def printed(result: SweepResult) -> list[str]:
    file = io.StringIO()
    show(result, Console(file=file, width=200))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_terminal_shows_points_and_below_what_went_wrong(mixed: SweepResult) -> None:
    lines = printed(mixed)
    assert lines[0].split() == [
        *("codebook", "runs", "bits/px", "psnr", "usage", "GFLOPs", "train", "s")
    ]
    # The mean of 20 and 21, both half a dB from it; 8.5 s are rounded to even.
    assert lines[1].split() == [
        *("ema", "2", "0.5000", "20.50", "+-0.50*", "0.625", "+-0.125", "2.5", "8")
    ]
    assert lines[2].split() == ["kl", "1", "-", "30.12", "-", "2.5", "12"]
    assert lines[3] == "*  on the frontier: no other point is better at the same or a lower rate"
    assert lines[4] == "+- largest distance of a seed from the mean"
    assert lines[5] == 'failed      kl1: lost, "quoted"'
    assert lines[7] == "waiting     vq0"
    assert lines[8] == AGAIN
    assert len(lines) == 9


def test_points_are_by_kind_and_rate(make_result) -> None:
    def job(name: str, codebook: str, size: int, rate: float):
        values = {"codebook": codebook, "codebook.size": size}
        return make_result(name, values=values, rate=rate, psnr=20.0, metrics={"lpips_alex": 0.5})

    jobs = [job("a", "vq", 64, 0.6), job("b", "fsq", 64, 0.6), job("c", "vq", 16, 0.4)]
    lines = printed(sweep(*jobs, codebook=["vq", "fsq"], codebook__size=[64, 16]))
    assert lines[0].split()[:5] == ["codebook", "size", "runs", "bits/px", "lpips_alex"]
    assert [line.split()[:5] for line in lines[1:4]] == [
        ["vq", "16", "1", "0.4000", "0.5000*"],
        ["vq", "64", "1", "0.6000", "0.5000"],
        ["fsq", "64", "1", "0.6000", "0.5000"],
    ]


def test_what_looks_like_markup_is_shown_as_it_is(make_result) -> None:
    jobs = [
        make_result("a", values={"k": "[red]"}, rate=0.5, psnr=20.0),
        make_result("b", values={"k": "x"}, state="failed", reason="[/] in [bold]x"),
    ]
    lines = printed(sweep(*jobs, k=["[red]", "x"]))
    assert lines[1].split()[0] == "[red]"
    assert lines[-2] == "failed      b: [/] in [bold]x"


def test_without_points_there_is_no_table(make_result) -> None:
    jobs = [
        make_result("a", values={"seed": 0}, state="interrupted"),
        make_result("b", values={"seed": 1}, state="failed", reason="why"),
    ]
    assert printed(sweep(*jobs, seed=[0, 1])) == [*("failed      b: why", "interrupted a", AGAIN)]


def test_a_collapse_is_told_beside_its_figures(make_result) -> None:
    job = make_result("a", rate=0.5, psnr=9.0, usage=0.125, state="collapsed", reason="1 id occurs")
    lines = printed(sweep(job, seed=[0]))
    assert lines[1].split() == [
        *("1", "0.5000", "9.00*", "0.125", "2.5", "-", "collapsed:", "1", "of", "1")
    ]
    assert lines[-1] == "collapsed   a: 1 id occurs"


def test_runs_are_counted_by_their_state(mixed: SweepResult) -> None:
    assert tally(mixed.jobs) == "3 finished, 1 failed, 1 waiting"
    assert tally([]) == ""


def test_figures_of_probes_are_columns_and_their_orders_are_compared(
    make_result, tmp_path: Path
) -> None:
    figures = [(20.0, 0.5, 0.4, 18.0), (22.0, 0.6, 0.5, 17.5), (21.0, 0.7, 0.6, 19.0)]
    jobs = [
        make_result(
            f"vq{size}",
            values={"codebook.size": size},
            rate=size / 64,
            psnr=psnr,
            probe={
                "entropy_bits_per_pixel": entropy,
                "probe_bits_per_pixel": model,
                "perturbed_psnr": perturbed,
            },
        )
        for size, (psnr, entropy, model, perturbed) in zip((16, 32, 64), figures, strict=True)
    ]
    jobs.append(make_result("kl", values={"codebook.size": 4}, psnr=30.0))
    found = sweep(*jobs, codebook__size=[16, 32, 64, 4])
    save_tables(found, tmp_path)
    names = ["entropy_bits_per_pixel", "probe_bits_per_pixel", "perturbed_psnr"]
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0][name] for name in names] == ["0.5", "0.4", "18.0"]
    assert [rows[3][name] for name in names] == ["", "", ""]
    assert parquet.read_table(tmp_path / "sweep.parquet").column(names[1]).to_pylist() == [
        *(0.4, 0.5, 0.6, None)
    ]
    lines = printed(found)
    assert lines[0].split()[4:10] == ["entropy", "bits/px", "model", "bits/px", "perturbed", "psnr"]
    assert lines[1].split()[:5] == ["4", "1", "-", "30.00", "-"]
    assert lines[2].split()[4:7] == ["0.5000", "0.4000", "18.00"]
    head = next(n for n, line in enumerate(lines) if line.startswith("rank correlations"))
    # From the best: by PSNR the 2nd, 3rd, 1st; by bits the 1st, 2nd, 3rd; perturbed 3rd, 1st, 2nd.
    # Spearman of three without ties is 1 - d / 4, of the sum d of squared differences of ranks.
    assert [line.split() for line in lines[head + 1 : head + 7]] == [
        ["reconstruction,", "entropy", "-0.50", "(3", "tokenizers)"],
        ["reconstruction,", "perturb", "-0.50", "(3", "tokenizers)"],
        ["reconstruction,", "transformer", "-0.50", "(3", "tokenizers)"],
        ["entropy,", "perturb", "-0.50", "(3", "tokenizers)"],
        ["entropy,", "transformer", "+1.00", "(3", "tokenizers)"],
        ["perturb,", "transformer", "-0.50", "(3", "tokenizers)"],
    ]
