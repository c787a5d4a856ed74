"""What is drawn of a sweep."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vqtrain.sweeps import plot
from vqtrain.sweeps.results import SweepResult, points_of


def sweep(*jobs) -> SweepResult:
    return SweepResult(command="x", axes={"seed": [0]}, jobs=jobs, points=points_of(jobs))


@pytest.fixture
def drawn(monkeypatch, tmp_path: Path):
    """Draw a sweep, and return the axes of the picture, or none if there is no picture."""

    def draw(*jobs):
        figures: list[Figure] = []
        original = Figure.savefig
        monkeypatch.setattr(
            Figure,
            "savefig",
            lambda figure, *words, **options: (
                figures.append(figure),
                original(figure, *words, **options),
            )[1],
        )
        plot.save_plot(sweep(*jobs), tmp_path)
        files = [file.name for file in tmp_path.iterdir()]
        assert files == ["sweep.png"] * len(figures)
        return figures[0].axes if figures else []

    return draw


def marks(axes) -> dict[tuple[float, float], tuple[str, str, bool]]:
    """Of each point that is drawn: color, shape and whether it is filled."""
    return {
        (line.get_xdata()[0], line.get_ydata()[0]): (
            line.get_color(),
            line.get_marker(),
            line.get_markerfacecolor() != "white",
        )
        for line in axes.lines
        if line.get_marker() in plot.SHAPES
    }


def legend_of(axes) -> list[str]:
    (legend,) = axes.figure.legends
    return [text.get_text() for text in legend.get_texts()]


def joined(axes) -> list[list[float]]:
    """Where lines go along that join several points."""
    return [
        list(container.lines[0].get_xdata())
        for container in axes.containers
        if container.lines[0].get_linestyle() == "-" and len(container.lines[0].get_xdata()) > 1
    ]


def test_rate_use_and_cost_have_a_panel_each(make_result, drawn) -> None:
    jobs = [
        make_result("a", values={"codebook": "vq"}, rate=0.5, psnr=20.0, usage=0.9, seconds=30.0),
        make_result(
            "b",
            values={"codebook": "fsq", "codebook.size": 16},
            rate=0.25,
            psnr=18.0,
            usage=0.4,
            seconds=20.0,
            state="collapsed",
        ),
    ]
    worse = make_result("c", values={"codebook": "lfq"}, rate=0.75, psnr=17.0)
    rate, use, cost = drawn(*jobs, worse)
    assert [axes.get_xlabel() for axes in (rate, use, cost)] == [
        *("bits per pixel", "bits per pixel", "training time (s)")
    ]
    assert [axes.get_ylabel() for axes in (rate, use, cost)] == [
        *("PSNR (dB)", "share of the ids in use", "PSNR (dB)")
    ]
    assert marks(rate).keys() == {(0.5, 20.0), (0.25, 18.0), (0.75, 17.0)}
    assert marks(use).keys() == {(0.5, 0.9), (0.25, 0.4)}
    assert marks(cost).keys() == {(30.0, 20.0), (20.0, 18.0)}
    # Two are on the frontier, which is drawn by the rate.
    assert rate.lines[0].get_color() == plot.FRONTIER["color"]
    assert list(rate.lines[0].get_xydata().flat) == [0.25, 18.0, 0.5, 20.0]
    assert legend_of(rate) == ["vq", "fsq", "lfq", "frontier", plot.HOLLOW]
    assert [text.get_text() for text in rate.texts] == ["16"]  # the size, where it is known
    # What has collapsed is hollow.
    assert [filled for *_, filled in marks(rate).values()] == [True, False, True]


def test_rate_of_a_model_has_a_panel_with_a_frontier_of_its_own(make_result, drawn) -> None:
    def job(kind: str, rate: float, psnr: float, **probe: float):
        return make_result(kind, values={"codebook": kind}, rate=rate, psnr=psnr, probe=probe)

    both = {"entropy_bits_per_pixel": 0.5}
    jobs = [
        job("vq", 0.5, 20.0, probe_bits_per_pixel=0.25, **both),
        job("fsq", 0.25, 21.0, probe_bits_per_pixel=0.5, **both),
        job("kl", 0.75, 30.0),
    ]
    raw, model = drawn(*jobs)
    assert model.get_xlabel() == "bits per pixel, of the transformer"
    assert marks(model).keys() == {(0.25, 20.0), (0.5, 21.0)}
    assert list(raw.lines[0].get_xydata().flat) == [0.25, 21.0, 0.75, 30.0]
    assert list(model.lines[0].get_xydata().flat) == [0.25, 20.0, 0.5, 21.0]
    # Without a transformer, it is the model that counts.
    _, counted = drawn(job("vq", 0.5, 20.0, **both))
    assert counted.get_xlabel() == "bits per pixel, of a context model"


def test_bars_are_from_the_least_to_the_greatest_seed(make_result, drawn) -> None:
    jobs = [
        make_result(str(seed), values={"seed": seed}, rate=0.5, psnr=psnr)
        for seed, psnr in enumerate([20.0, 21.0, 25.0])
    ]
    (rate,) = drawn(*jobs)
    assert marks(rate).keys() == {(0.5, 22.0)}
    (bars,) = rate.containers[0].lines[2]
    assert bars.get_segments()[0].tolist() == [[0.5, 20.0], [0.5, 25.0]]


def test_equal_figures_of_seeds_can_be_drawn(make_result, drawn) -> None:
    # (0.1 + 0.1 + 0.1) / 3 is more than 0.1 in floating point.
    jobs = [
        make_result(str(n), values={"seed": n}, rate=0.5, psnr=0.1, usage=0.7) for n in range(3)
    ]
    assert marks(drawn(*jobs)[0]).keys() == {(0.5, 0.1)}


def test_lines_join_what_differs_by_its_size_alone(make_result, drawn) -> None:
    jobs = [
        make_result(
            f"{kind}{size}{rate}",
            values={"codebook": kind, "codebook.size": size, "optim.lr": lr},
            rate=rate,
            psnr=20.0 + rate,
            seconds=10.0,
        )
        for kind, size, rate, lr in [
            ("vq", 64, 0.6, 1),
            ("vq", 16, 0.4, 1),
            ("vq", 32, 0.5, 1),
            ("vq", 32, 0.5, 2),
            ("fsq", 16, 0.4, 1),
            ("fsq", 64, 0.6, 1),
        ]
    ]
    rate, cost = drawn(*jobs)
    assert joined(rate) == [[0.4, 0.5, 0.6], [0.4, 0.6]]
    assert joined(cost) == []


def test_kl_alone_is_drawn_by_its_cost(make_result, drawn) -> None:
    (cost,) = drawn(make_result(values={"codebook": "kl"}, psnr=30.0, seconds=5.0))
    assert cost.get_xlabel() == "training time (s)"
    assert marks(cost).keys() == {(5.0, 30.0)}
    assert legend_of(cost) == ["kl"]


def test_kl_is_beside_others_where_it_has_figures(make_result, drawn) -> None:
    rate, cost = drawn(
        make_result("a", values={"codebook": "kl"}, psnr=30.0, seconds=5.0),
        make_result("b", values={"codebook": "vq"}, rate=0.5, psnr=20.0, seconds=4.0),
    )
    assert len(marks(rate)) == 1
    assert marks(cost).keys() == {(5.0, 30.0), (4.0, 20.0)}
    # A kind looks the same in each panel.
    assert marks(rate)[0.5, 20.0] == marks(cost)[4.0, 20.0]


def test_metrics_of_which_less_is_better_say_so(make_result, drawn) -> None:
    metrics = {"psnr": 20.0, "lpips_alex": 0.5, "rfid@16": 30.0}
    panels = drawn(make_result(rate=0.5, psnr=20.0, metrics=metrics, usage=0.5))
    assert [axes.get_title(loc="left") for axes in panels] == [
        *("", "lower is better", "lower is better", "")
    ]
    assert [axes.get_ylabel() for axes in panels[:3]] == ["PSNR (dB)", "LPIPS alex", "rFID@16"]
    # Four panels are two by two.
    assert panels[0].get_subplotspec().get_gridspec().get_geometry() == (2, 2)


def test_a_point_is_drawn_where_it_has_the_metric(make_result, drawn) -> None:
    psnr, ssim = drawn(
        make_result("a", values={"n": 1}, rate=0.5, psnr=20.0, metrics={"psnr": 20.0, "ssim": 0.5}),
        make_result("b", values={"n": 2}, rate=0.25, psnr=18.0),
    )
    assert marks(psnr).keys() == {(0.5, 20.0), (0.25, 18.0)}
    assert marks(ssim).keys() == {(0.5, 0.5)}


def test_one_point_without_anything_else_is_a_picture(make_result, drawn) -> None:
    (rate,) = drawn(make_result(rate=0.5, psnr=20.0))
    assert marks(rate) == {(0.5, 20.0): ("#0072B2", "o", True)}


def test_many_kinds_and_points_can_be_told_apart(make_result, drawn) -> None:
    jobs = [
        make_result(
            f"{kind}_{size}",
            values={"codebook": f"kind{kind}", "codebook.size": 2**size},
            rate=size / 16,
            psnr=20.0 + kind,
        )
        for kind in range(12)
        for size in range(1, 5)
    ]
    (rate,) = drawn(*jobs)
    found = marks(rate)
    assert len(found) == 48
    assert len({(color, shape) for color, shape, _ in found.values()}) == 12
    assert len(legend_of(rate)) == 13


def test_without_figures_there_is_no_picture(make_result, drawn) -> None:
    assert drawn(make_result("a"), make_result("b", state="failed")) == []
    # kl has no rate; without a time it cannot be drawn.
    assert drawn(make_result(values={"codebook": "kl"}, psnr=30.0)) == []


def test_the_file_is_a_picture_and_replaces_an_older_one(make_result, tmp_path: Path) -> None:
    (tmp_path / "sweep.png").write_text("older")
    plot.save_plot(sweep(make_result(rate=0.5, psnr=20.0)), tmp_path)
    picture = Image.open(io.BytesIO((tmp_path / "sweep.png").read_bytes()))
    assert picture.format == "PNG"
    assert picture.size == (462, 458)  # 4.2 inches at 110 dots, by 0.85 of it and 0.6
    assert np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).shape[0] > 2
