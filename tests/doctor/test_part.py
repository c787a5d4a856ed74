"""``vqtrain doctor part=package.module:Class``: a class and the contract of its group."""

import sys
from pathlib import Path

import pytest

from vqtrain.cli import main

STRANGERS = '''
"""Codebooks of another package."""

import torch

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.errors import require


class Signs(Codebook):
    """Keeps the contract: ids are signs."""

    size, dim, num_codebooks = 2, 1, 1
    id_order, selection_rule = "1 where positive", "sign"

    def __init__(self, *, length: float, max_steps: int, shift: float = 0.0) -> None:
        super().__init__()
        assert max_steps == 1000, "it comes from the run"
        require(length > 0, f"length must be above 0, got {length}")
        self.length, self.shift = length, shift

    def forward(self, z):
        ids = (z > 0).long()
        z_q = z + (self.decode(ids) - z).detach()
        return Quantized(z_q=z_q, token_ids=ids, loss=z.new_zeros(()))

    def decode(self, token_ids):
        return (token_ids * 2.0 - 1) * self.length


class Shifted(Signs):
    """Breaks it: decode does not give z_q back."""

    def decode(self, token_ids):
        self.shift += 1
        return super().decode(token_ids) + self.shift


class Failing(Signs):
    """Breaks it: forward fails."""

    def forward(self, z):
        raise RuntimeError("shapes do not fit")
'''


@pytest.fixture(autouse=True)
def _strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers_for_the_doctor.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strangers_for_the_doctor", raising=False)


def examine(
    capsys: pytest.CaptureFixture[str], name: str, *words: str
) -> tuple[int, list[str], str]:
    part = name if ":" in name or name == "fsq" else f"strangers_for_the_doctor:{name}"
    code = main(["doctor", f"part={part}", *words])
    printed = capsys.readouterr()
    return code, printed.out.split(maxsplit=2), printed.err


def test_a_part_that_keeps_its_contract_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    code, (mark, group, found), _ = examine(capsys, "Signs", "arguments.length=2")
    assert (code, mark, group) == (0, "ok", "codebook")
    assert found == (
        "strangers_for_the_doctor:Signs keeps the contract vqtrain.codebooks.base.Codebook\n"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Shifted", "decode must give back the z_q"), ("Failing", "shapes do not fit")],
)
def test_the_first_broken_promise_is_named(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (mark, group, found), _ = examine(capsys, name, "arguments={length: 2}")
    assert (code, mark, group) == (1, "broken", "codebook")
    assert reason in found
    assert "-> see the contract, vqtrain.codebooks.base.Codebook" in found


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("Signs", [], "arguments.length is missing"),
        ("Signs", ["arguments.length=x"], "arguments.length must be a number, got 'x'"),
        ("Signs", ["arguments.lenght=1"], "arguments: unknown key 'lenght', did you mean 'length'"),
        (
            "Signs",
            ["arguments.length=0"],
            "for_the_doctor:Signs: arguments.length must be above 0, got",
        ),
        ("Absent", [], "part: cannot import 'strangers_for_the_doctor:Absent'"),
        ("nowhere:Signs", [], "part: cannot import 'nowhere:Signs'"),
        ("math:pi", [], "part: 'math:pi' is not a class"),
        ("pathlib:Path", [], "Path is no part: it must inherit from one of"),
        ("fsq", [], "part must be package.module:Class, got 'fsq'"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    name: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = examine(capsys, name, *words)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
