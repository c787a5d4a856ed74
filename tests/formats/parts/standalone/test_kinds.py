"""Kinds are looked up in a table, and nothing is imported by their names."""

import pytest

from vqtrain.codebooks.fsq import FSQ
from vqtrain.errors import ConfigError
from vqtrain.formats.parts.standalone.kinds import KINDS, build, build_part, in_context

FSQ_ARGUMENTS = {"size": 16, "levels": None, "eps": 1e-3}


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, ("codebook", "fsq"), FSQ)


def test_a_kind_of_the_table_is_built_with_checked_arguments() -> None:
    built = build_part("codebook", {"kind": "fsq", "arguments": FSQ_ARGUMENTS})
    assert isinstance(built, FSQ)
    part = in_context("codebook", {"kind": "fsq", "arguments": {"eps": 0.1}}, {"size": 4, "b": 1})
    assert part == {"kind": "fsq", "arguments": {"size": 4, "eps": 0.1}}
    with pytest.raises(ConfigError, match=r"codebook\.size must be"):
        build("codebook", "fsq", {**FSQ_ARGUMENTS, "size": "16"})


@pytest.mark.parametrize("kind", ["os:system", "vq", "builtins:exec", "vqtrain.build"])
def test_any_other_kind_is_refused(kind: str) -> None:
    part = {"kind": kind, "arguments": {}}
    with pytest.raises(ConfigError, match=f"codebook.kind is '{kind}', this code has: fsq"):
        in_context("codebook", part, {})
    with pytest.raises(ConfigError, match=f"inner.kind is '{kind}', this code has: fsq"):
        build("codebook", kind, FSQ_ARGUMENTS, where="inner")
