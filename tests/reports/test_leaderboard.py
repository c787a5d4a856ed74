"""The page of a leaderboard."""

from collections.abc import Callable
from pathlib import Path

from vqtrain.evaluation.leaderboard import FAILED, Board
from vqtrain.reports.blocks import Charts, Table, Viewer
from vqtrain.reports.leaderboard import frontiers_of, leaderboard_page
from vqtrain.reports.site import pictures_of

MakeBoard = Callable[..., tuple[Board, Path]]


def cells(table: Table, head: str) -> list[str]:
    column = table.heads.index(head)
    return [row[column].text for row in table.rows]


def test_the_frontier_is_worked_out_by_metric(make_board: MakeBoard) -> None:
    board, _ = make_board()
    # Rates 0.5, 0.25 and 0.25; PSNR 23, 22 and 20, SSIM 0.6, 0.7 and 0.5: of two with the same rate
    # the better one, and where it is the best of all no other. The fourth has no rate.
    assert frontiers_of(board) == {
        "A <b>": ["psnr"],
        "B": ["psnr", "ssim"],
        "C": [],
        "KL": [],
        "broken": [],
    }


def test_the_page_holds_rows_reasons_and_commands(make_board: MakeBoard) -> None:
    board, rows = make_board()
    page = leaderboard_page(board, pictures_of(board, rows.parent / "pictures", rows))
    sections = {section.key: section.blocks for section in page.sections}
    assert list(sections) == [
        *("summary", "results", "failed", "rate", "cost", "reconstructions", "commands"),
        "protocols",
    ]
    assert page.subtitle == "5 tokenizers on 3 images of demo"
    (results,) = sections["results"]
    assert isinstance(results, Table)
    assert cells(results, "tokenizer") == ["KL", "A <b>", "B", "C"]
    assert cells(results, "ids") == ["-", "16", "16", "2 x 16"]
    assert cells(results, "bits/px") == ["-", "0.5000", "0.2500", "0.2500"]
    tones = [row[results.heads.index("PSNR")].tone for row in results.rows]
    assert tones == ["good", "", "", ""]
    assert (results.marked, results.mark) == ({1, 2}, "Only on a frontier")
    (failed,) = sections["failed"]
    assert isinstance(failed, Table)
    assert [cell.text for cell in failed.rows[0]] == ["broken", FAILED, "no tokenizer at broken"]
    (commands,) = sections["commands"]
    assert isinstance(commands, Table)
    assert cells(commands, "command")[-1] == "vqtrain evaluate tokenizer=broken"
    _, charts = sections["rate"][:2]
    assert isinstance(charts, Charts)
    names = [point["name"] for point in charts.charts[0]["points"]]  # type: ignore[attr-defined]  # plain data
    assert names == ["A <b>", "B", "C", "JPEG at 0.90 bits/px, for A <b>"]
    (_, viewer) = sections["reconstructions"]
    assert isinstance(viewer, Viewer)
    assert [item.name for item in viewer.items] == ["image <0>", "image <1>"]
    layers = viewer.items[0].layers
    assert [layer.name for layer in layers] == ["original", "KL", "A <b>", "B", "C"]
    assert layers[1].caption.endswith(" dB")
