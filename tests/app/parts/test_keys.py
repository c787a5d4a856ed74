"""What was typed becomes the arguments of a command, one of a third party as well."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from vqtrain.app.parts.keys import arguments_of
from vqtrain.app.parts.pages import hints_of
from vqtrain.build import configs_folder, kinds
from vqtrain.cli import main
from vqtrain.errors import ConfigError
from vqtrain.ranges import at_least

COMMANDS = kinds("command")
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
