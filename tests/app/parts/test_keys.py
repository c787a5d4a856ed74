"""What a command's yaml says, what a third party's signature says, and what was typed."""

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from vqtrain.app.base import Command
from vqtrain.app.parts.keys import arguments_of, hints_of, is_closed, page_of, read_page
from vqtrain.build import configs_folder, kinds, resolve
from vqtrain.cli import main
from vqtrain.errors import ConfigError
from vqtrain.ranges import at_least

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
STRANGER = '''
"""A command of another package."""

from dataclasses import dataclass
from typing import Annotated, final

from vqtrain.app.base import Command
from vqtrain.ranges import at_least


@final
class Count(Command):
    """Counts to a number."""

    def run(self, *, to: Annotated[int, at_least(1)], step: int = 1, **options: object) -> int:
        """Count.

        Args:
            to: The last number,
                at least 1.
            step: What is added.
        """
        print(list(range(step, to + 1, step)), options)
        return 3
'''


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
    page = page_of(word, command)
    assert page.about.startswith(f"usage: vqtrain {word}")
    assert page.examples.count(f"\n  vqtrain {word} ") + (word == "doctor") >= 2


@pytest.mark.parametrize("word", COMMANDS)
def test_a_wrong_word_is_refused_before_the_command_is_imported(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = resolve("command", word)()
    parameters = inspect.signature(command.run).parameters.values()
    takes_others = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    assert is_closed(word) is not (command.is_composed or takes_others)
    if not is_closed(word):
        return
    monkeypatch.setattr("vqtrain.app.parts.keys.resolve", None)
    for words, message in (
        (["foo=1"], "unknown key 'foo'"),
        (["--print-config"], "has no configuration"),
        ([], "name the "),
    ):
        assert main([word, *words]) == 2
        assert message in capsys.readouterr().err


def test_code_config_and_test_come_in_threes() -> None:
    configs = {path.stem for path in (configs_folder() / "command").glob("*.yaml")}
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parents[1].glob("test_*")}
    assert configs == set(COMMANDS) == tests - {"experiments", "ranges"}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_strangers_commands.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_strangers_commands", raising=False)
    return "a_strangers_commands:Count"


def test_a_strangers_command_runs_with_its_keys(
    stranger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stranger, "to=4", "step=2", "other=[1]"]) == 3
    assert capsys.readouterr().out == "[2, 4] {'other': [1]}\n"


def test_the_help_of_a_strangers_command_is_its_docstrings(
    stranger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stranger, "--help"]) == 0
    assert (
        capsys.readouterr().out
        == f"""\
usage: vqtrain {stranger} [key=value ...]

Counts to a number.

keys:
  to    The last number, at least 1.
  step  What is added. [1]

options:
  --help   show this
"""
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the to: vqtrain a_strangers_commands:Count [key=value ...]"),
        (["to=0"], "to must be at least 1, got 0"),
        (["to=x"], "to must be a whole number, got 'x'"),
        (["to=1", "--print-config"], "this command has no configuration"),
    ],
)
def test_a_mistake_in_a_strangers_command_is_one_line(
    stranger: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stranger, *words]) == 2
    assert capsys.readouterr().err.startswith(f"vqtrain: {message}")


@pytest.mark.parametrize("word", ["nowhere:Command", "vqtrain.codebooks.vq:VQ"])
def test_what_is_no_command_is_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err.startswith("vqtrain: command.kind: ")


COUNT = Annotated[int, at_least(1)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Keys that belong together."""

    count: COUNT


def test_fields_of_an_argument_that_is_a_dataclass_are_keys() -> None:
    def run(*, path: str, settings: Settings) -> int:
        return len(path) + settings.count

    assert hints_of(run) == {"path": str, "count": COUNT}
    arguments = arguments_of(run, {"path": "abc", "count": 2}, {})
    assert run(**arguments) == 5
    with pytest.raises(ConfigError, match=r"^count must be at least 1, got 0$"):
        arguments_of(run, {"path": "abc", "count": 0}, {})
