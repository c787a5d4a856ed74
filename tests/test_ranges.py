"""Values that fit their annotated types and ranges, and what is said of others."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypedDict, Unpack

import pytest

from vqtrain.build import bind
from vqtrain.errors import ConfigError
from vqtrain.ranges import (
    FINITE,
    above,
    at_least,
    at_most,
    check,
    check_fields,
    checked,
    edits,
    expected,
    nearest,
    one_of,
    resolve_fractions,
    within,
)

Count = Annotated[int, at_least(1)]
Word = Annotated[str, one_of("permuted", "resampled")]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Count, 1),
        (Count | None, None),
        (Annotated[int, at_least(1), at_most(8)], 8),
        (Annotated[float, above(0)], 1),  # a whole number is a number
        (Annotated[float, within(0, 1)], 1.0),
        (Annotated[float, within(0, 1, below_high=True)], 0.0),
        (Annotated[float, FINITE] | str, "auto"),
        (Word, "resampled"),
        (Sequence[Word], ["permuted"]),
        (Mapping[str, object], {}),
        (bool, False),
    ],
)
def test_a_value_in_its_range_is_taken(hint: object, value: object) -> None:
    assert expected(value, hint) is None


@pytest.mark.parametrize(
    ("hint", "value", "wanted"),
    [
        (Count, 0, "at least 1"),
        (Count, 1.0, "a whole number"),
        (Count, True, "a whole number"),
        (Count | None, 0, "at least 1 or null"),
        (Count | None, "x", "a whole number or null"),
        (Annotated[int, at_least(1), at_most(8)], 9, "at least 1 and at most 8"),
        (Annotated[float, above(0), FINITE], math.nan, "above 0 and finite"),
        (Annotated[float, above(0), FINITE], math.inf, "above 0 and finite"),
        (Annotated[float, within(0, 1)], -0.1, "in [0, 1]"),
        (Annotated[float, within(0, 1, below_high=True)], 1, "in [0, 1)"),
        (Word, "x", "one of permuted, resampled"),
        (Word, 16, "one of permuted, resampled"),
        (Word, ["permuted"], "one of permuted, resampled"),
        (Sequence[Word], ["permuted", 3], "a list, each item one of permuted, resampled"),
        (Sequence[Count], 3, "a list, each item a whole number"),
        (bool, 1, "true or false"),
    ],
)
def test_another_value_is_answered_with_what_is_valid(
    hint: object, value: object, wanted: str
) -> None:
    assert expected(value, hint) == wanted


def test_a_message_names_the_key_the_value_and_a_near_choice() -> None:
    message = "data.sampling must be one of permuted, resampled, got 'permute'; did you mean permu"
    with pytest.raises(ConfigError, match=message):
        check("data.sampling", "permute", Word)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Two fields, of which one has a range."""

    count: Count
    name: str = "x"

    def __post_init__(self) -> None:
        check_fields(self, "group")


def test_fields_are_checked_however_they_are_set() -> None:
    assert Settings(count=1) == bind(Settings, {"count": 1}, where="group")
    with pytest.raises(ConfigError, match=r"^group\.count must be at least 1, got 0$"):
        Settings(count=0)
    with pytest.raises(ConfigError, match=r"^group\.count must be at least 1, got 0$"):
        bind(Settings, {"count": 0}, where="group")


def test_arguments_of_a_checked_function_are_in_their_ranges() -> None:
    @checked
    def double(*, count: Count) -> int:
        return 2 * count

    assert double(count=2) == 4
    with pytest.raises(ConfigError, match=r"^count must be at least 1, got 0$"):
        double(count=0)


class Sizes(TypedDict):
    """Arguments that functions share."""

    width: Count


def test_shared_arguments_are_checked_as_if_they_were_written_out() -> None:
    @checked
    def area(*, height: Count, **sizes: Unpack[Sizes]) -> int:
        return height * sizes["width"]

    assert str(inspect.signature(area)).count("Annotated[int") == 2
    assert bind(area, {"height": 2, "width": 3}, where="x") == 6
    with pytest.raises(ConfigError, match=r"^width must be at least 1, got 0$"):
        area(height=2, width=0)
    with pytest.raises(ConfigError, match=r"^x\.width is missing$"):
        bind(area, {"height": 2}, where="x")
    with pytest.raises(ConfigError, match=r"^x: unknown key 'widths', did you mean 'width'"):
        bind(area, {"height": 2, "widths": 3}, where="x")


def test_keys_of_no_group_stand_alone_in_messages() -> None:
    def run(*, limit: Count) -> int:
        return limit

    with pytest.raises(ConfigError, match=r"^limit must be at least 1, got 0$"):
        bind(run, {"limit": 0}, where="")
    with pytest.raises(ConfigError, match=r"^limit is missing$"):
        bind(run, {}, where="")
    with pytest.raises(ConfigError, match=r"^unknown key 'limi', did you mean 'limit'"):
        bind(run, {"limi": 1}, where="")


def test_the_nearest_word_is_the_fewest_edits_away() -> None:
    # Edits by hand: a pair swapped is one, and so is a letter more, less or changed.
    assert [edits("fqs", each) for each in ("fsq", "lfq", "vq", "fqs", "")] == [1, 2, 2, 0, 3]
    assert edits("resampel", "resampled") == 2
    assert nearest("fqs", ["lfq", "fsq", "vq"]) == "fsq"
    assert nearest("lqf", ["lfq", "fsq", "vq"]) == "lfq"
    assert nearest("network", ["vq"]) is None


def test_shares_of_the_run_become_steps() -> None:
    settings = {
        "warmup_steps": "5%",
        "start_step": "12.5%",
        "log_every": "0%",
        "name": "10%",
        "trainer": {"validate_every": "10%", "log_every": 7},
    }
    assert resolve_fractions(settings, 200) == {
        "warmup_steps": 10,  # 5 % of 200
        "start_step": 25,  # 12.5 % of 200
        "log_every": 1,  # an interval is never 0
        "name": "10%",  # no step value
        "trainer": {"validate_every": 20, "log_every": 7},
    }


@pytest.mark.parametrize("text", ["ten", "10", "-5%", "101%"])
def test_a_step_value_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="warmup_steps"):
        resolve_fractions({"warmup_steps": text}, 100)
