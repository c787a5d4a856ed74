"""Pages in a browser: nothing leaves them, and all of them works by mouse and by keys."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from vqtrain.reports.page import write

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KINDS = ["run", "evaluation", "sweep"]
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
# Pixels of a canvas that are not transparent.
INK = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let n = 3; n < data.length; n += 4) count += data[n] > 0;
  return count;
}"""
# Of all that a person can use with a mouse, what Tab does not reach: of a group of radio buttons
# it reaches the chosen one, and arrows the others.
CONTROLS = "a, button, input, select, summary, canvas, .stage"
USABLE = """controls => [...document.querySelectorAll(controls)]
  .filter((each) => each.checkVisibility() && !(each.type === "radio" && !each.checked)).length"""
# Of all that gets the focus from now on: whether it is a control, shows its focus, and what it is.
WATCH = """controls => {
  window.reached = new Map();
  document.addEventListener("focusin", ({ target }) => {
    const shown = target.type === "radio" ? target.nextSibling : target;
    const isSeen = getComputedStyle(shown).outlineStyle !== "none";
    reached.set(target, [target.matches(controls), isSeen, target.outerHTML.slice(0, 200)]);
  });
}"""


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Pages that are there already: to look at one does not change it."""
    return {}


@pytest.fixture
def file_of(made: dict[str, Path], request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Write the page of a kind, if no test before has."""

    def write_run() -> Path:
        make_run = request.getfixturevalue("make_run")
        return write(make_run("run"), other=make_run("other", "optim.lr=0.5"), limit=8)

    kinds = {
        "run": write_run,
        "evaluation": lambda: write(request.getfixturevalue("evaluation")),
        "sweep": lambda: write(request.getfixturevalue("make_sweep")()),
        "probe": lambda: write(request.getfixturevalue("probe")),
    }

    def find(kind: str) -> Path:
        if kind not in made:
            made[kind] = kinds[kind]()
        return made[kind]

    return find


Look = Callable[..., Page]


def open_page(browser: Browser, file: Path, wrong: list[str], **options: Any) -> Page:
    """Open a page in a context of its own, and note what it asks for and which errors it says."""
    page = browser.new_page(viewport={"width": 1300, "height": 900}, **options)
    own = (file.as_uri(), "data:", "blob:")
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(own) or wrong.append(request.url))
    page.goto(file.as_uri())
    return page


@pytest.fixture
def look(browser: Browser, file_of: Callable[[str], Path]) -> Iterator[Look]:
    """Open a page; in the end nothing must have been asked for, and no error said."""
    pages, wrong = [], []

    def add(kind: str, **options: Any) -> Page:
        pages.append(open_page(browser, file_of(kind), wrong, **options))
        return pages[-1]

    yield add
    for page in pages:
        page.close()
    assert wrong == []


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, tuple[Page, list[str]]]]:
    """Pages that are open already, each with what was wrong."""
    pages: dict[str, tuple[Page, list[str]]] = {}
    yield pages
    for page, _ in pages.values():
        page.close()


@pytest.fixture
def read(
    browser: Browser,
    file_of: Callable[[str], Path],
    opened: dict[str, tuple[Page, list[str]]],
) -> Iterator[Look]:
    """Open a page that the test leaves as it is, if no test before has; as ``look`` otherwise."""

    def find(kind: str) -> Page:
        if kind not in opened:
            wrong: list[str] = []
            opened[kind] = open_page(browser, file_of(kind), wrong), wrong
        return opened[kind][0]

    yield find
    assert [wrong for _, wrong in opened.values() if wrong] == []


@pytest.mark.parametrize("kind", [*KINDS, "probe"])
def test_a_page_draws_everything_and_asks_for_nothing(
    read: Look, file_of: Callable[[str], Path], kind: str
) -> None:
    page = read(kind)
    assert file_of(kind).stat().st_size < 5_000_000
    canvases = page.locator("canvas").all()
    assert len(canvases) >= 2
    assert all(canvas.evaluate(INK) > 1_000 for canvas in canvases)
    for image in page.locator(".stage img").all():
        assert image.evaluate("image => image.complete && image.naturalWidth") > 0


@pytest.mark.parametrize("kind", [*KINDS, "probe"])
def test_a_page_is_never_wider_than_the_window(read: Look, kind: str) -> None:
    page = read(kind)
    for width in (400, 1600, 1300):  # the last is that of the other tests
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_sorts_by_click_and_by_enter_with_missing_values_last(look: Look, kind: str) -> None:
    page = look(kind)
    table = page.locator("main table").first if kind == "run" else page.locator("#results table")
    table = page.locator("#runs table") if kind == "sweep" else table
    name = {"run": "last", "evaluation": "bits/px", "sweep": "PSNR"}[kind]
    head = table.get_by_role("columnheader", name=name)
    column = head.evaluate("head => head.cellIndex")

    def values() -> list[float | None]:
        cells = table.locator(f"tbody td:nth-child({column + 1})").all()
        found = [cell.get_attribute("data-value") for cell in cells]
        return [None if each is None else float(each) for each in found]

    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = values()
    known = [value for value in rising if value is not None]
    assert len(known) >= 3
    assert rising == sorted(known) + [None] * (len(rising) - len(known))
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(known, reverse=True) + [None] * (len(rising) - len(known))
    assert table.locator("th[aria-sort]").count() == 1


@pytest.mark.parametrize(
    ("scheme", "first", "second"), [("light", LIGHT, DARK), ("dark", DARK, LIGHT)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_theme_is_the_system_s_until_the_button_is_pressed(
    look: Look, kind: str, scheme: str, first: str, second: str
) -> None:
    page = look(kind, color_scheme=scheme)
    assert page.evaluate(BACKGROUND) == first
    grid = "Object.values(Chart.instances)[0].options.scales.x.grid.color"
    before = page.evaluate(grid)
    page.get_by_role("button", name="theme").press("Enter")
    assert page.evaluate(BACKGROUND) == second
    assert page.evaluate(grid) != before
    page.reload()
    assert page.evaluate(BACKGROUND) == second  # it is remembered


def test_the_theme_follows_the_system_as_long_as_nothing_was_chosen(look: Look) -> None:
    page = look("run", color_scheme="light")
    page.emulate_media(color_scheme="dark")
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()
    assert page.evaluate(BACKGROUND) == DARK


def test_a_page_is_printed_in_light_colors(look: Look) -> None:
    page = look("run", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(BACKGROUND) == LIGHT
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(BACKGROUND) == DARK


@pytest.mark.parametrize("kind", KINDS)
def test_the_divider_moves_by_mouse_and_by_keys(look: Look, kind: str) -> None:
    page = look(kind)
    viewer = page.locator(".viewer").first
    stage, divider = viewer.locator(".stage"), viewer.locator(".divider")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    page.mouse.up()
    place = float(divider.evaluate("divider => parseFloat(divider.style.left)"))
    assert place == pytest.approx(25, abs=1)
    clip = viewer.locator(".side").first.evaluate("side => side.style.clipPath")
    assert clip.startswith(f"inset(0px {100 - place:.0f}"[:12])
    slider = viewer.get_by_role("slider")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    moved = float(divider.evaluate("divider => parseFloat(divider.style.left)"))
    assert moved == pytest.approx(place + 2, abs=1)
    stage.press("ArrowLeft")
    assert float(divider.evaluate("divider => parseFloat(divider.style.left)")) == moved - 2


def test_a_picture_is_zoomed_panned_and_shown_pixel_by_pixel(look: Look) -> None:
    page = look("run")
    viewer = page.locator(".viewer").first
    stage, image = viewer.locator(".stage"), viewer.locator(".side img").first
    viewer.get_by_role("button", name="Zoom in").click()
    assert image.evaluate("image => image.style.transform") == "translate(-50%, -50%) scale(2)"
    stage.press("ArrowRight")
    assert image.evaluate("image => image.style.transform") == "translate(-60%, -50%) scale(2)"
    stage.press("+")
    assert "scale(3)" in image.evaluate("image => image.style.transform")
    both = viewer.locator(".side img").all()
    assert len({each.evaluate("image => image.style.transform") for each in both}) == 1
    box = stage.bounding_box()
    assert box is not None
    before = image.evaluate("image => image.style.transform")
    page.mouse.move(box["x"] + 40, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 90, steps=3)
    page.mouse.up()
    assert image.evaluate("image => image.style.transform") != before
    stage.press("0")
    assert image.evaluate("image => image.style.transform") == "translate(0%, 0%) scale(1)"
    pixels = viewer.get_by_label("Pixels")
    assert pixels.is_checked()  # of small pictures
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    pixels.press("Space")
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "auto"


def test_pictures_and_their_looks_are_chosen_by_keys(look: Look) -> None:
    page = look("sweep")
    viewer = page.locator(".viewer").first
    images = viewer.locator(".side img")
    original = images.nth(0).get_attribute("src")
    viewer.locator(".choices input:checked").press("ArrowRight")
    assert images.nth(0).get_attribute("src") != original
    expect(viewer.locator(".caption")).to_contain_text("image 2")
    before = images.nth(1).get_attribute("src")
    viewer.locator(".versions input:checked").press("ArrowDown")
    assert images.nth(1).get_attribute("src") != before
    assert viewer.locator(".tag.right").text_content() == "vq, codebook.size=256"
    viewer.get_by_label("left side").select_option("vq, codebook.size=64")
    assert images.nth(0).get_attribute("src") == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_legend_shows_and_hides_series(look: Look, kind: str) -> None:
    page = look(kind)
    chart = page.locator(".chart:has(.legend)").first
    button, canvas = chart.locator(".legend button").first, chart.locator("canvas")
    visible = "canvas => Chart.getChart(canvas).isDatasetVisible(0)"
    button.press("Enter")
    assert (button.get_attribute("aria-pressed"), canvas.evaluate(visible)) == ("false", False)
    page.get_by_role("button", name="theme").click()  # it stays hidden
    assert canvas.evaluate(visible) is False
    button.click()
    assert (button.get_attribute("aria-pressed"), canvas.evaluate(visible)) == ("true", True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_has_its_numbers_as_a_table(look: Look, kind: str) -> None:
    page = look(kind)
    summaries = page.locator(".chart summary").all()
    for summary in summaries:
        summary.press("Enter")
    rows = page.locator(".chart").evaluate_all(
        """charts => charts.map((chart) => {
          const rows = [...chart.querySelectorAll("tbody tr")];
          const { datasets } = Chart.getChart(chart.querySelector("canvas")).data;
          return [rows.filter((row) => row.checkVisibility()).length,
                  Math.max(...datasets.map((set) => set.data.length))];
        })"""
    )
    assert len(rows) == len(summaries) >= 2
    assert all(shown >= max(drawn, 1) for shown, drawn in rows)


def test_a_loss_is_drawn_on_a_logarithmic_axis(look: Look) -> None:
    page = look("run")
    chart = page.locator(".chart", has_text="Terms of the loss")
    kind = "canvas => Chart.getChart(canvas).scales.y.type"
    assert chart.locator("canvas").evaluate(kind) == "linear"
    chart.get_by_role("button", name="logarithmic").press("Enter")
    assert chart.locator("canvas").evaluate(kind) == "logarithmic"


def test_arrow_keys_tell_the_points_of_a_chart(look: Look) -> None:
    page = look("sweep")
    chart = page.locator("#rate .chart").first
    chart.locator("canvas").press("ArrowRight")
    expect(chart.locator("[aria-live]")).to_contain_text("vq, codebook.size=64")
    chart.locator("canvas").press("ArrowRight")
    expect(chart.locator("[aria-live]")).to_contain_text("vq, codebook.size=256")


def test_a_point_of_a_collapsed_codebook_is_hollow_and_says_so(look: Look) -> None:
    page = look("sweep")
    canvas = page.locator("#rate canvas").first
    found = canvas.evaluate(
        """canvas => {
          const chart = Chart.getChart(canvas);
          const number = chart.data.datasets.findIndex((set) => set.label === "ema");
          const index = chart.data.datasets[number].data.findIndex((raw) => raw.point.hollow);
          const { options } = chart.getDatasetMeta(number).data[index];
          return [options.backgroundColor, options.borderColor];
        }"""
    )
    assert found == ["#ffffff", "#d55e00"]
    for _ in range(4):  # three points of vq, then the first one of ema
        canvas.press("ArrowRight")
    spoken = page.locator("#rate .chart [aria-live]").first
    expect(spoken).to_contain_text("codebook collapsed")


def test_another_cost_can_be_chosen(look: Look) -> None:
    page = look("sweep")
    chart = page.locator("#cost .chart").first
    chart.get_by_role("combobox").select_option(label="parameters")
    title = "canvas => Chart.getChart(canvas).scales.x.options.title.text"
    assert chart.locator("canvas").evaluate(title) == "parameters"


def test_the_configuration_is_searched_and_compared(look: Look) -> None:
    page = look("run")
    block = page.locator("#configuration .table")
    field, rows = block.get_by_role("searchbox"), block.locator("tbody tr:visible")
    everything = rows.count()
    field.fill("optim lr")
    texts = rows.all_text_contents()
    assert 1 <= len(texts) < everything
    assert all("optim" in text and "lr" in text for text in texts)
    expect(block.get_by_role("status")).to_have_text(f"{len(texts)} of {everything} rows")
    field.fill("")
    block.get_by_label("Only differing keys").check()
    assert any("optim.lr" in text and "0.5" in text for text in rows.all_text_contents())
    assert rows.count() < 10


@pytest.mark.parametrize("kind", KINDS)
def test_tab_reaches_everything_with_a_focus_that_is_seen(look: Look, kind: str) -> None:
    page = look(kind)
    expected = page.evaluate(USABLE, CONTROLS)
    page.evaluate(WATCH, CONTROLS)
    before, stops = -1, 0
    while stops > before:  # until it has come back to the first
        for _ in range(20):
            page.keyboard.down("Tab")  # held down: the next one is half as slow
        before, stops = stops, page.evaluate("reached.size")
    reached = page.evaluate("[...reached.values()]")
    assert [text for _, is_seen, text in reached if not is_seen] == []
    assert sum(is_control for is_control, *_ in reached) == expected


def test_the_skip_link_leads_to_the_content(look: Look) -> None:
    page = look("run")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


@pytest.mark.parametrize("kind", KINDS)
def test_headings_go_down_by_one_and_ids_are_unique(read: Look, kind: str) -> None:
    page = read(kind)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    ids = page.locator("[id]").evaluate_all("all => all.map((each) => each.id)")
    assert len(ids) == len(set(ids))
    links = page.locator("nav a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    assert [link for link in links if link not in {f"#{each}" for each in ids}] == []


def test_names_of_users_are_text(read: Look) -> None:
    assert read("run").locator("h1").text_content() == "run <b>&"
    assert read("evaluation").locator("h1").text_content() == "runs/a<b>, runs/kl"
