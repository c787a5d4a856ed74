"""The site of a leaderboard: its files, and what a browser makes of them."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from vqtrain.evaluation.leaderboard import Board
from vqtrain.reports.site import write_site

MakeBoard = Callable[..., tuple[Board, Path]]
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that does not say what it was asked for."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(make_board: MakeBoard) -> Path:
    board, rows = make_board()
    write_site(board, rows.parent, rows=rows)
    return rows.parent


Look = Callable[..., Page]


@pytest.fixture
def look(browser: Browser, site: Path) -> Iterator[Look]:
    """Open the site from a server; in the end nobody else was asked, and no error said."""
    contexts, wrong = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}/"

    def open_page(*, width: int = 1300, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)  # type: ignore[arg-type]  # some of its keys
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: asked.url.startswith((root, "data:")) or wrong.append(asked.url),
        )
        page.on("response", lambda answer: answer.ok or wrong.append(answer.url))
        page.goto(root)
        return page

    yield open_page
    for context in contexts:
        context.close()
    server.shutdown()
    server.server_close()
    assert wrong == []


def test_a_leaderboard_without_figures_has_a_page(make_board: MakeBoard) -> None:
    board, rows = make_board(measured_too=False)
    write_site(board, rows.parent, rows=rows)
    html = (rows.parent / "index.html").read_text()
    assert "no tokenizer at broken" in html
    assert "Reconstructions" not in html


def test_pictures_are_those_of_the_evaluation_and_written_once(make_board: MakeBoard) -> None:
    board, rows = make_board()
    folder = rows.parent
    write_site(board, folder, rows=rows)
    pictures = folder / "pictures"
    (original,) = pictures.glob("original-*")
    key = board.rows[0].key
    with Image.open(rows / key / "first/01_image.png") as picture:
        whole = np.asarray(picture)
    for file, left in ((original / "0.webp", 4), (pictures / key / "0.webp", 40)):
        with Image.open(file) as found:
            np.testing.assert_array_equal(np.asarray(found), whole[4:36, left : left + 32])
    times = {file: file.stat().st_mtime_ns for file in pictures.rglob("*.webp")}
    assert len(times) == 2 + 4 * 2
    (pictures / "mine").mkdir()
    (pictures / ("0" * 16)).mkdir()
    write_site(board, folder, rows=rows)
    assert {file: file.stat().st_mtime_ns for file in pictures.rglob("*.webp")} == times
    assert (pictures / "mine").is_dir()  # somebody else's
    assert not (pictures / ("0" * 16)).exists()


@pytest.mark.parametrize("text", ["A &lt;b&gt;", "img-src &#39;self&#39; data:"])
def test_names_are_text_and_only_its_own_pictures_are_fetched(
    make_board: MakeBoard, text: str
) -> None:
    board, rows = make_board()
    write_site(board, rows.parent, rows=rows)
    html = (rows.parent / "index.html").read_text()
    assert text in html
    assert "A <b>" not in html.replace(r"A \u003cb\u003e", "")


def names(page: Page) -> list[str]:
    return page.locator("#results tbody tr:visible td:first-child").all_text_contents()


@pytest.mark.browser
@pytest.mark.slow
def test_rows_are_sorted_and_filtered_by_mouse_and_by_keys(look: Look) -> None:
    page = look()
    assert names(page) == ["KL", "A <b>", "B", "C"]
    head = page.locator("#results").get_by_role("columnheader", name="bits/px")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["B", "C", "A <b>", "KL"]  # without a rate: last
    head.get_by_role("button").press("Enter")
    assert names(page) == ["A <b>", "B", "C", "KL"]
    field = page.locator("#results").get_by_role("searchbox")
    field.fill("grouped")
    assert names(page) == ["C"]
    expect(page.locator("#results").get_by_role("status")).to_have_text("1 of 4 rows")
    field.fill("")
    page.get_by_label("Only on a frontier").press("Space")
    assert names(page) == ["A <b>", "B"]
    field.fill("<first> fsq")
    assert names(page) == ["A <b>"]


@pytest.mark.browser
@pytest.mark.slow
def test_pictures_are_compared_under_the_divider(look: Look) -> None:
    page = look()
    sides = page.locator(".stage img")
    for image in sides.all():
        image.evaluate("image => image.decode()")
        assert image.evaluate("image => image.naturalWidth") == 32
    first = str(sides.nth(1).get_attribute("src"))
    assert first == "pictures/0000000000000004/0.webp"
    page.locator(".versions input:checked").press("ArrowRight")
    assert sides.nth(1).get_attribute("src") == "pictures/0000000000000001/0.webp"
    expect(page.locator(".caption")).to_contain_text("A <b> 22.00 dB on the right")
    page.locator(".choices input:checked").press("ArrowRight")
    assert sides.nth(1).get_attribute("src") == "pictures/0000000000000001/1.webp"
    slider = page.locator(".viewer").get_by_role("slider")
    slider.press("ArrowLeft")
    assert slider.input_value() == "49"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1300)])
def test_the_site_fits_a_phone_and_both_themes(look: Look, scheme: str, width: int) -> None:
    page = look(width=width, color_scheme=scheme)
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(BACKGROUND) == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)"
    )
    assert page.locator("canvas").count() == 4
    page.get_by_role("button", name="theme").press("Enter")
    assert page.evaluate(BACKGROUND) == (
        "rgb(20, 23, 28)" if scheme == "light" else "rgb(255, 255, 255)"
    )


@pytest.mark.browser
@pytest.mark.slow
def test_the_site_opens_from_a_disk(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    image = page.locator(".stage img").first
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.naturalWidth") == 32
    page.close()
