"""The page of a tokenizer: what it holds, and that a browser computes what PyTorch does."""

import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from vqtrain import Tokenizer
from vqtrain.data.sources.demo import photographs
from vqtrain.errors import ConfigError
from vqtrain.formats import web
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.formats.parts.onnx_graphs import write_graphs
from vqtrain.formats.parts.web_page import example_pixels, longest, page_data
from vqtrain.formats.parts.web_runtime import SCRIPT, WASM, cached_package
from vqtrain.formats.space import Space
from vqtrain.formats.web import Web

pytestmark = pytest.mark.usefixtures("unchecked")

LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
# What Chromium says of a machine without a GPU, whatever the page asks it for.
NO_GPU = "No available adapters."

# What Tab is to reach: of a group of radio buttons, the chosen one.
USABLE = """controls => [...document.querySelectorAll(controls)].filter((each) => (
  each.checkVisibility() && !each.disabled && !(each.type === "radio" && !each.checked))).length"""

Make = Callable[..., Tokenizer]


def export(tokenizer: Tokenizer, out: Path, **options: Any) -> Path:
    """Write a page."""
    out.mkdir(parents=True)
    size = traced_size(tokenizer) or tuple(4 * side for side in tokenizer.unit)
    Web(**options).export(tokenizer, out, images=[torch.rand(2, tokenizer.channels, *size) * 2 - 1])
    return out


@pytest.fixture
def _equal_graphs_are_written_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Copy the graphs of ``mine``, which take seconds, from the test that has written them."""

    def write(tokenizer: Tokenizer, out: Path, **options: Any) -> Agreement:
        kept = tmp_path_factory.getbasetemp() / "graphs of mine"
        if not kept.exists():
            kept.mkdir()
            write_graphs(tokenizer, kept, **options)
        shutil.copytree(kept, out, dirs_exist_ok=True)
        return Agreement(images=2, ids=0, other_ids=0, pixels=0.0)

    monkeypatch.setattr(web, "write_graphs", write)


@pytest.mark.slow
@pytest.mark.usefixtures("no_runtime", "_equal_graphs_are_written_once")
def test_a_folder_holds_files_and_one_file_holds_all(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("ema", training={"name": "<b>mine", "image_size": 64})
    folder = export(tokenizer, tmp_path / "folder")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        *("README.md", "config.json", "decoder.onnx", "encoder.onnx", "index.html"),
        *(f"runtime/{SCRIPT}", f"runtime/{WASM}"),
    ]
    assert "Copyright (c) Microsoft" in (folder / "runtime/LICENSE").read_text()
    alone = export(tokenizer, tmp_path / "alone", single_file=True)
    assert [path.name for path in alone.iterdir()] == ["index.html"]
    for page, source in ((folder, "'self'"), (alone, "'none'")):
        text = (page / "index.html").read_text()
        assert "&lt;b&gt;mine" in text
        assert "ema, 16 ids; tokens: 16 x 16 for 64 x 64 px" in text
        assert "<b>mine" not in text
        assert f"connect-src {source};" in text
        assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", text) == []
    assert "Copyright (c) Microsoft" in text
    assert text.count('<script type="text/plain" id="part-') == 4


def test_grids_of_ids_are_drawn_as_what_they_are(make_tokenizer: Make) -> None:
    def levels(codebook: str, network: str = "vqvae") -> tuple[object, object]:
        reference = page_data(make_tokenizer(codebook, network), {})["reference"]
        return reference["tokens"], reference["levels"]

    assert levels("ema") == ([2, 2], [[2, 2]])
    assert levels("grouped") == ([4, 2, 2], [[2, 2]] * 4)
    assert levels("hierarchical") == ([10, 2], [[2, 2], [4, 4]])  # in rows of half the width
    assert levels("multiscale") == ([26], [[1, 1], [3, 3], [4, 4]])
    assert levels("fsq", "latent_query") == ([4], [[1, 4]])


def test_the_example_is_whole_and_its_size_suits_the_tokens(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer("ema")
    assert longest(tokenizer) == 128  # 32 tokens of 4 px
    tokenizer.training_summary["image_size"] = 160
    assert longest(tokenizer) == 160
    data = page_data(tokenizer, {})
    assert data["sizes"] == [64, 128, 160, 256, 512, 1024]
    pixels = example_pixels(tokenizer, (160, 160))
    assert (
        data["example"]["ids"]
        == tokenizer.encode(tokenizer.preprocess(pixels))[0].flatten().tolist()
    )
    # No dimension is stretched.
    with Image.open(photographs() / "chelsea.png") as opened:
        square = opened.convert("RGB").crop((75, 0, 375, 300)).resize((160, 160))
    assert np.abs(np.asarray(square, int) - pixels).mean() < 3


@pytest.mark.usefixtures("no_runtime")
def test_what_a_page_and_an_app_cannot_show_is_refused(
    make_tokenizer: Make, sound_tokenizer: Path, clip_tokenizer: Path, tmp_path: Path
) -> None:
    shown = "shows token ids of pictures of 1 or 3 channels in uint8, and this tokenizer"
    for tokenizer, reason in (
        (Tokenizer.from_pretrained(sound_tokenizer), "takes sounds"),
        (Tokenizer.from_pretrained(clip_tokenizer), "takes clips"),
        (make_tokenizer("fsq", pixel_range=(-1.0, 1.0)), r"has pixels in \(-1.0, 1.0\)"),
        (make_tokenizer("kl"), "has none, as codebook=kl is continuous: format=.*"),
    ):
        for word, exporter in (("web", Web()), ("space", Space())):
            with pytest.raises(ConfigError, match=f"^format={word} {shown} {reason}$"):
                exporter.export(tokenizer, tmp_path, images=[])
    with pytest.raises(ConfigError, match="unknown precision 'float61'"):
        Web(precision="float61")
    assert list(tmp_path.iterdir()) == []


# ---- In a browser.


@pytest.fixture(scope="session")
def runtime() -> str:
    """The package of the runtime, of the user's own cache, since it is large."""
    try:
        return str(cached_package())
    except ConfigError as error:
        pytest.skip(str(error))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


Look = Callable[..., Page]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open a page; in the end nothing may have left it, and no error been said."""
    contexts, servers, wrong = [], [], []

    def open_page(folder: Path, *, is_served: bool = True, **options: Any) -> Page:
        origin = (folder / "index.html").as_uri()
        if is_served:
            server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
            origin = f"http://127.0.0.1:{server.server_port}/"
        context = browser.new_context(**{"viewport": {"width": 1300, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: line.text == NO_GPU or wrong.append(line.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = (origin, "data:", "blob:")
        page.on("request", lambda each: each.url.startswith(own) or wrong.append(each.url))
        page.goto(origin)
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    assert wrong == []


def wait(page: Page) -> None:
    """Wait until a page has encoded and decoded all."""
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true", timeout=30_000)


def downloaded(page: Page, button: str) -> bytes:
    wait(page)
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_bytes()


def ids_of(page: Page) -> torch.Tensor:
    return torch.from_numpy(np.load(io.BytesIO(downloaded(page, "Download ids"))))


def picture_of(page: Page) -> np.ndarray:
    content = downloaded(page, "Download reconstruction")
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)


def check_decoded(page: Page, tokenizer: Tokenizer) -> np.ndarray:
    """Compare the picture on a page with what PyTorch decodes from its ids."""
    pixels = tokenizer.to_pixels(tokenizer.decode(ids_of(page)))[0]
    found = picture_of(page)
    assert np.abs(found - pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()).max() <= 2
    return found


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A photograph that is not square, and of which not all makes whole tokens."""
    with Image.open(photographs() / "coffee.png") as opened:
        opened.convert("RGB").crop((200, 100, 327, 193)).save(tmp_path / "coffee.png")
    return tmp_path / "coffee.png"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.usefixtures("_equal_graphs_are_written_once")
@pytest.mark.parametrize("single_file", [False, True], ids=["folder", "single_file"])
def test_a_page_computes_what_pytorch_does(
    look: Look,
    make_tokenizer: Make,
    runtime: str,
    photograph: Path,
    tmp_path: Path,
    single_file: bool,
) -> None:
    tokenizer = make_tokenizer("ema", training={"name": "mine", "image_size": 64})
    folder = export(tokenizer, tmp_path / "page", single_file=single_file, runtime=runtime)
    page = look(folder, is_served=not single_file)
    expect(page.locator("#agreement")).to_have_text("1,024 of the example's 1,024 ids are equal")
    page.locator("#file").set_input_files(photograph)
    expect(page.locator(".caption")).to_contain_text("124 \u00d7 92 px")
    expected = tokenizer.encode(tokenizer.preprocess(Image.open(photograph)))
    encoded = ids_of(page)
    assert encoded.shape == (1, 23, 31)
    assert (encoded == expected).float().mean() >= 0.999
    before = check_decoded(page, tokenizer)
    # A click chooses a token; its id is typed.
    box = page.locator("#map").bounding_box()
    place = {"x": 4.5 / 31 * box["width"], "y": 2.5 / 23 * box["height"]}
    page.locator("#map").click(position=place)
    expect(page.locator("#selected")).to_contain_text("Row 3 of 23, column 5 of 31")
    other = (int(encoded[0, 2, 4]) + 7) % 16
    page.locator("#id").fill(str(other))
    page.locator("#id").press("Enter")
    expect(page.locator("#effect")).to_contain_text("1 changed token moves")
    edited = ids_of(page)
    assert (edited != encoded).nonzero().tolist() == [[0, 2, 4]]
    assert edited[0, 2, 4] == other
    after = check_decoded(page, tokenizer)
    assert (before != after).any()
    changed = np.argwhere((before != after).any(2))
    assert np.abs(changed.mean(0) - (10, 18)).max() < 16  # around the token, of 4 px
    # The rest by keys.
    page.locator("#map").focus()
    for key in ("ArrowRight", "ArrowDown", "+", "End", "r", "Delete"):
        page.keyboard.press(key)
    expect(page.locator("#effect")).to_contain_text("2 changed tokens move")
    assert ids_of(page)[0, 3, 5] == (encoded[0, 3, 5] + 1) % 16
    page.get_by_role("button", name="Restore all").press("Enter")
    expect(page.locator("#effect")).to_have_text("Nothing is changed.")
    assert torch.equal(ids_of(page), encoded)
    page.locator("#id").fill("16")
    page.locator("#id").press("Enter")
    expect(page.locator("#selected")).to_have_text("An id is a whole number from 0 to 15")
    # No picture: the one that is there stays.
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "", "buffer": b"text"})
    expect(page.locator("#failure")).to_have_text("a.png is no picture that the browser can read")
    assert torch.equal(ids_of(page), encoded)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(
    ("codebook", "network", "shape", "level"),
    [
        ("hierarchical", "vqvae", (1, 80, 16), "scale 2, 32 \u00d7 32"),
        ("grouped", "vit", (1, 4, 4, 4), "codebook 3, 4 \u00d7 4"),
        ("fsq", "latent_query", (1, 4), None),
    ],
)
def test_every_layout_of_ids_can_be_edited(
    look: Look,
    make_tokenizer: Make,
    runtime: str,
    tmp_path: Path,
    codebook: str,
    network: str,
    shape: tuple[int, ...],
    level: str | None,
) -> None:
    tokenizer = make_tokenizer(codebook, network)
    page = look(export(tokenizer, tmp_path / "page", runtime=runtime))
    before = ids_of(page)
    assert before.shape == shape
    if level:
        page.locator("#level").select_option(label=level)
    page.locator("#map").press("+")
    expect(page.locator("#effect")).to_contain_text("1 changed token moves")
    assert (ids_of(page) != before).sum() == 1
    check_decoded(page, tokenizer)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.usefixtures("_equal_graphs_are_written_once")
def test_a_page_suits_phones_keys_and_both_themes(
    look: Look, make_tokenizer: Make, runtime: str, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("ema", training={"name": "mine", "image_size": 64})
    folder = export(tokenizer, tmp_path / "page", runtime=runtime)
    page = look(folder, viewport={"width": 375, "height": 700}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.evaluate(BACKGROUND) == DARK
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(BACKGROUND) == LIGHT
    page.evaluate("document.activeElement.blur()")
    page.locator("#map").press("+")  # so that nothing is disabled
    wait(page)
    controls = "a, button, input, select, canvas[tabindex], .stage, pre"
    usable = page.evaluate(USABLE, controls)
    page.evaluate("document.activeElement.blur(); window.reached = new Set()")
    for _ in range(usable + 5):
        page.keyboard.press("Tab")
        page.evaluate("reached.add(document.activeElement)")
    assert (
        page.evaluate(
            "controls => [...reached].filter((each) => each.matches(controls)).length", controls
        )
        == usable
    )
