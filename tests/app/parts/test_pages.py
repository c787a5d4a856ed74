"""What the yaml of a command says."""

import pytest

from vqtrain.app.base import Command
from vqtrain.app.parts.pages import page_of, read_page
from vqtrain.build import kinds, resolve

COMMANDS = kinds("command")
PAGE = """\
# do something
#
# usage: vqtrain do path=PATH
#
# About it.
path: ???     # a path
color: "#ff"  # a color
sizes: []     # some sizes, of which
              # there may be none
weights:      # files
  vgg: null   # the first
  alex: 3.0
# A note.
#
# examples:
#   vqtrain do path=a
"""


def test_comments_of_a_yaml_are_its_help() -> None:
    page = read_page(PAGE)
    assert page.summary == "do something"
    assert page.about == "usage: vqtrain do path=PATH\n\nAbout it."
    assert page.defaults == {
        "path": "???",
        "color": "#ff",
        "sizes": [],
        "weights.vgg": None,
        "weights.alex": 3.0,
    }
    assert page.meanings["path"] == "a path"
    assert page.meanings["color"] == "a color"
    assert page.meanings["sizes"] == "some sizes, of which there may be none"
    assert page.meanings["weights.vgg"] == "the first"
    assert page.notes == "A note."
    assert page.examples == "examples:\n  vqtrain do path=a"


@pytest.mark.parametrize("word", COMMANDS)
def test_the_help_shows_the_usage_and_two_examples(word: str) -> None:
    command = resolve("command", word)()
    assert isinstance(command, Command)
    page = page_of(word)
    assert page.is_composed is command.is_composed
    assert page.about.startswith(f"usage: vqtrain {word}")
    assert page.examples.count(f"\n  vqtrain {word} ") + (word == "doctor") >= 2
