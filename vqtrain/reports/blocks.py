"""The parts of a page: sections of texts, facts, tables, charts and viewers of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

MISSING = "-"


@final
@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is shown.
        value: The sort key; None for a missing value, which comes last.
        href: The target of its link, relative to the page; empty for no link.
        tone: Its style: ``good``, ``bad``, ``quiet`` or nothing.
        is_number: Whether it is sorted and shown as a number.
    """

    text: str
    value: int | float | str | None
    href: str = ""
    tone: str = ""
    is_number: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; a ``warning`` stands out."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Code:
    """A command line or the like."""

    kind: ClassVar[str] = "code"
    text: str


@final
@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with their values; large for the few that matter most."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]
    is_large: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted.

    Attributes:
        caption: What it holds.
        heads: Of the columns.
        rows: Cells, as many as heads.
        search: What its search field looks for; empty for no search field.
        marked: Numbers of the rows that a checkbox can limit the table to; None for no checkbox.
        mark: What the checkbox says.
        notes: Sentences below it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    search: str = ""
    marked: frozenset[int] | None = None
    mark: str = ""
    notes: Sequence[str] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Charts:
    """Charts next to each other, as ``vqtrain.reports.charts`` describes them."""

    kind: ClassVar[str] = "charts"
    title: str
    charts: Sequence[Mapping[str, object]]


@final
@dataclass(frozen=True, kw_only=True)
class Layer:
    """One version of an image: the original, a reconstruction, its ids.

    Attributes:
        name: The name of its button.
        image: Its number among the page's images.
        caption: Figures, for people.
    """

    name: str
    image: int
    caption: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Item:
    """An image in its versions, the first of which is the original."""

    name: str
    layers: Sequence[Layer]
    caption: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Images, two versions of one of them under a divider.

    Attributes:
        label: What it shows.
        items: The images.
        right: The version that is on the right at first.
    """

    kind: ClassVar[str] = "viewer"
    label: str
    items: Sequence[Item]
    right: str


@final
@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it is.

    Attributes:
        uri: The picture as a data URI.
        label: What it shows.
    """

    kind: ClassVar[str] = "picture"
    uri: str
    label: str


@final
@dataclass(frozen=True, kw_only=True)
class Player:
    """A clip or a sound that plays, in one version or in several.

    Attributes:
        name: Its name.
        sources: Of each version its name and its data URI.
        caption: Figures, for people.
        poster: The picture of a clip before it plays, as a data URI; empty for none.
    """

    name: str
    sources: Sequence[tuple[str, str]]
    caption: str = ""
    poster: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Players:
    """Clips or sounds, by the controls of the browser.

    Attributes:
        label: What they are.
        items: The clips or the sounds.
    """

    kind: ClassVar[str] = "players"
    label: str
    items: Sequence[Player]


Block = Text | Code | Facts | Table | Charts | Viewer | Picture | Players


@final
@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, with an entry in its table of contents."""

    key: str
    title: str
    blocks: Sequence[Block]


@final
@dataclass(frozen=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        title: Its head.
        kind: Its subject, in two words.
        subtitle: One line below the title.
        sections: Its parts.
        images: URIs that layers refer to by number.
        has_files: Whether images are files beside the page, and not data in it.
    """

    title: str
    kind: str
    subtitle: str
    sections: Sequence[Section]
    images: Sequence[str] = ()
    has_files: bool = False


def sections_of(found: Mapping[str, tuple[str, Sequence[Block]]]) -> list[Section]:
    """Make sections from titles and blocks by key; those without blocks are left out."""
    return [
        Section(key=key, title=title, blocks=blocks)
        for key, (title, blocks) in found.items()
        if blocks
    ]


def table(
    caption: str, rows: Sequence[Mapping[str, Cell]], *, search: str = "", notes: Sequence[str] = ()
) -> Table:
    """Make a table of rows, each of which maps column heads to cells."""
    columns = {head: cell for row in rows for head, cell in row.items()}
    missing = {
        head: number(None) if cell.is_number else word(None) for head, cell in columns.items()
    }
    cells = [list({**missing, **row}.values()) for row in rows]
    return Table(caption=caption, heads=list(columns), rows=cells, search=search, notes=notes)


def word(text: object, *, tone: str = "", href: str = "") -> Cell:
    """Make a cell of text."""
    shown = "" if text is None else str(text)
    tone = tone if shown else "quiet"
    return Cell(text=shown or MISSING, value=shown.lower() or None, tone=tone, href=href)


def number(value: object, *, decimals: int | None = None, tone: str = "") -> Cell:
    """Make a cell of a number; empty for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return Cell(text=MISSING, value=None, tone="quiet", is_number=True)
    return Cell(text=figure(value, decimals=decimals), value=value, tone=tone, is_number=True)


# Longer numbers are written with a power of ten.
LARGEST_WHOLE = 1e15


def figure(value: int | float, *, decimals: int | None = None) -> str:
    """Write a number for people.

    Example:
        >>> figure(1234567), figure(0.5), figure(21.25, decimals=2), figure(0.0000123), figure(1e30)
        ('1,234,567', '0.5', '21.25', '1.23e-05', '1e+30')
    """
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if abs(value) >= LARGEST_WHOLE:
        return f"{value:.3g}"
    if isinstance(value, int) or value == round(value):
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")
