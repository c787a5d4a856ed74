"""From blocks to HTML: nothing in a name becomes markup, and nothing is fetched."""

import base64
import hashlib
import json
import re
from html import unescape

from vqtrain.drawing.html import as_json
from vqtrain.reports.blocks import (
    Charts,
    Code,
    Facts,
    Item,
    Layer,
    Page,
    Picture,
    Section,
    Table,
    Text,
    Viewer,
    number,
    word,
)
from vqtrain.reports.render import render

EVIL = '</script ><img src=x onerror="alert(1)">&\''


def page_of(name: str) -> Page:
    item = Item(name=name, layers=[Layer(name=name, image=0, caption=name)])
    table = Table(
        caption=name,
        heads=[name, "n"],
        rows=[[word(name, href="a b"), number(None)]],
        search=name,
        marked=frozenset({0}),
        mark=name,
        notes=[name],
    )
    blocks = [
        Text(text=name),
        Code(text=name),
        Facts(rows=[(name, name)]),
        table,
        Charts(title=name, charts=[{"title": name}]),
        Viewer(label=name, items=[item], right=name),
        Picture(uri="data:,", label=name),
    ]
    sections = [Section(key="all", title=name, blocks=blocks)]
    return Page(title=name, kind="Run", subtitle=name, sections=sections, images=["data:,"])


def test_names_never_become_markup() -> None:
    html = render(page_of(EVIL))
    assert html.replace(as_json(EVIL), "").count("<img") == 1  # the picture
    assert html.count("</script") == html.count("<script") == 3


def test_the_data_comes_back_as_it_was() -> None:
    html = render(page_of(EVIL))
    found = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    assert json.loads(found[1])["blocks"][0] == [{"title": EVIL}]


def test_blocks_have_the_numbers_of_their_data() -> None:
    html = render(page_of("a"))
    assert re.findall(r'class="(charts|viewer)" data-block="(\d)"', html) == [
        ("charts", "0"),
        ("viewer", "1"),
    ]


def test_only_the_page_s_own_scripts_may_run_and_nothing_is_fetched() -> None:
    html = render(page_of("a"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', unescape(html))
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert "sourceMappingURL" not in html
    assert re.findall(r'(?:src|href)="(?!#|data:|a b)[^"]*"', html) == []


def test_a_missing_value_has_nothing_to_be_sorted_by() -> None:
    assert re.search(r'<td class="number quiet">-</td>', render(page_of("a")))
