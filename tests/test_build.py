"""Kind words, arguments that are checked, and steps written as a share."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from vqtrain import build
from vqtrain.codebooks.vq import VQ
from vqtrain.errors import ConfigError


def example(
    *, count: int, share: float, name: str | None, sizes: Sequence[int], inner: Mapping[str, object]
) -> tuple[object, ...]:
    return count, share, name, sizes, inner


GOOD = {"count": 3, "share": 1, "name": None, "sizes": [1, 2], "inner": {"a": 1}}


def test_a_kind_word_is_the_final_class_of_its_file() -> None:
    assert build.resolve("codebook", "vq") is VQ
    assert build.resolve("codebook", "vqtrain.codebooks.vq:VQ") is VQ


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"codebook.kind: unknown kind 'emma', .* 'ema'"):
        build.resolve("codebook", "emma")


def test_base_is_no_kind() -> None:
    with pytest.raises(ConfigError, match="unknown kind 'base'"):
        build.resolve("codebook", "base")


@pytest.mark.parametrize("kind", ["nowhere:Class", "vqtrain.errors:Nothing", "math:pi", ":x"])
def test_a_class_that_cannot_be_imported_is_named(kind: str) -> None:
    with pytest.raises(ConfigError, match=kind):
        build.resolve("codebook", kind)


def test_a_misspelt_class_of_a_module_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"; did you mean 'MultiScale'\?"):
        build.resolve("codebook", "vqtrain.codebooks.multiscale:MultiScael")


def test_a_class_outside_the_groups_contract_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must inherit from vqtrain\.encoders\.base\.Encoder"):
        build.resolve("encoder", "vqtrain.codebooks.vq:VQ")


@pytest.mark.parametrize("group", build.GROUPS)
def test_every_group_has_a_contract_and_kinds_that_keep_it(group: str) -> None:
    contract = build.contract_of(group)
    assert contract.__module__ == f"{build.package_of(group)}.base"
    assert build.kinds(group)
    assert all(issubclass(build.resolve(group, kind), contract) for kind in build.kinds(group))


def test_the_group_of_a_class_is_that_of_its_contract() -> None:
    assert build.group_of(VQ) == "codebook"
    with pytest.raises(ConfigError, match="Path is no part: it must inherit from"):
        build.group_of(Path)


def test_a_part_gets_what_it_asks_for_by_name() -> None:
    context = {"in_channels": 4, "out_channels": 4, "sample_size": (8, 8), "world_size": 2}
    part = {"kind": "patchgan", "arguments": {"channels": 8}}
    assert build.in_context("discriminator", part, context) == {
        "kind": "patchgan",
        "arguments": {"in_channels": 4, "channels": 8},
    }
    own = {"kind": "patchgan", "arguments": {"in_channels": 1}}
    assert build.in_context("discriminator", own, context) == own  # what is set stays


def test_whole_numbers_are_widened_where_numbers_are_meant() -> None:
    bound = build.bind(example, GOOD, where="here")
    assert bound == (3, 1.0, None, [1, 2], {"a": 1})
    assert isinstance(bound[1], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "abc"}, "here.count must be a whole number, got 'abc'"),
        ({"count": 1.5}, "here.count must be a whole number, got 1.5"),
        ({"count": True}, "here.count must be a whole number, got True"),
        ({"share": "x"}, "here.share must be a number, got 'x'"),
        ({"name": 3}, "here.name must be text or null, got 3"),
        ({"sizes": 3}, "here.sizes must be a list, each item a whole number, got 3"),
        ({"sizes": ["a"]}, "here.sizes must be a list, each item a whole number"),
        ({"inner": 3}, "here.inner must be a mapping, got 3"),
        ({"cuont": 3}, "here: unknown key 'cuont', did you mean 'count'?"),
    ],
)
def test_a_wrong_argument_is_one_sentence(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build.bind(example, {**GOOD, **change}, where="here")
    assert str(caught.value).startswith(message)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ConfigError, match=r"here.share is missing"):
        build.bind(example, {"count": 3}, where="here")


def test_what_a_module_refuses_is_prefixed_with_its_kind() -> None:
    with pytest.raises(ConfigError, match=r"^codebook=fsq: codebook\.levels must be one or more"):
        build.build("codebook", "fsq", {"size": None, "levels": [], "eps": 0.001})


def test_a_table_that_no_memory_holds_is_refused_in_a_sentence() -> None:
    arguments = {
        "size": 10**13,
        "dim": 32,
        "commitment_weight": 0.25,
        "l2_normalize": False,
        "decay": 0.99,
        "gradient": "straight_through",
        "kmeans_iterations": 0,
        "restart_below": 0.0,
        "sampling_temperature": 0.0,
    }
    # 10^13 rows of 32 numbers of 4 bytes.
    with pytest.raises(ConfigError, match="codebook=ema: its sizes need 1,280,000 GB of memory"):
        build.build("codebook", "ema", arguments)


OWN = """
from vqtrain.encoders.base import Encoder


class Whole(Encoder):
    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.out_channels, self.downsampling = width, (2, 2)

    def forward(self, samples):
        return samples


class NoForward(Encoder):
    out_channels, downsampling = 8, (2, 2)


class NoAttribute(Encoder):
    downsampling = (2, 2)
    forward = Whole.forward


class Half(Whole):
    def __init__(self) -> None:
        super().__init__(width=7 / 2)


class Failing(Whole):
    def __init__(self) -> None:
        self.layer.weight = 0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, which is on no path."""
    (tmp_path / "own_for_build.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "own_for_build", raising=False)
    return "own_for_build"


def test_a_class_in_the_current_folder_is_found(own: str) -> None:
    assert getattr(build.build("encoder", f"{own}:Whole", {"width": 5}), "out_channels", 0) == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoForward", "the contract vqtrain.encoders.base.Encoder asks for forward"),
        ("NoAttribute", "Encoder asks for the attribute out_channels"),
        ("Half", "out_channels must be a whole number, got 3.5"),
        ("Failing", "own_for_build.py:30: AttributeError: 'Failing' object has no attribute 'la"),
    ],
)
def test_what_a_class_of_ones_own_lacks_is_one_line(own: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build.build("encoder", f"{own}:{name}", {})
    assert str(raised.value).startswith(f"encoder={own}:{name}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
