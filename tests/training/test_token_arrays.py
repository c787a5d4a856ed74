"""Token ids and conditions from shards."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vqtrain.errors import ConfigError, DataError
from vqtrain.training.token_arrays import TokenArrays, condition_of, read_tokens

IDS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def write(folder: Path, fields: Sequence[dict[str, str]], **changes: object) -> Path:
    """Write ids as ``vqtrain tokenize layout=flat`` does, one sample for each mapping of fields."""
    folder.mkdir()
    np.save(folder / "tokens.npy", IDS[: len(fields)])
    lines = [json.dumps({"key": f"k{n}", "fields": each}) for n, each in enumerate(fields)]
    (folder / "samples.jsonl").write_text("".join(f"{line}\n" for line in lines))
    files = ("tokens.npy", "samples.jsonl")
    entries = [{"name": name, "bytes": (folder / name).stat().st_size} for name in files]
    index = {
        "format": "vqtrain-tokens",
        "version": 1,
        "tokens": {"shape": [2, 3], "dtype": "uint8", "size": 24},
        "settings": {"layout": "flat"},
        "samples": len(fields),
        "files": entries,
    }
    (folder / "index.json").write_text(json.dumps({**index, **changes}))
    return folder


def test_ids_and_classes_are_those_of_the_files(tmp_path: Path) -> None:
    both = [{"cls": "7", "txt": "12"}, {"cls": "0", "txt": "no"}]
    written = write(tmp_path / "a", both)
    arrays = read_tokens(written, condition="cls")
    assert arrays.token_ids.dtype == np.uint8
    np.testing.assert_array_equal(arrays.token_ids, IDS[:2])
    assert arrays.conditions.tolist() == [[7], [0]]
    condition = condition_of(arrays, arrays)
    assert (condition.size, condition.length) == (8, 1)
    # What is trained on is told by its hash, in which conditions count.
    again = read_tokens(written, condition="cls")
    unconditional = read_tokens(written, condition=None)
    assert arrays.digest == again.digest != unconditional.digest
    assert condition_of(unconditional, unconditional).length == 0


def test_texts_are_bytes_cut_and_padded_to_64(tmp_path: Path) -> None:
    long = "xy" * 40
    arrays = read_tokens(write(tmp_path / "a", [{"txt": "\u00e9"}, {"txt": long}]), condition="txt")
    # The letter is 2 bytes in UTF-8.
    assert arrays.conditions.tolist() == [[0xC3, 0xA9, *[256] * 62], [*b"xy" * 32]]
    condition = condition_of(arrays, arrays)
    assert (condition.size, condition.length) == (257, 64)


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        (
            [{"cls": "1", "txt": "a"}, {"txt": "b"}],
            {},
            r"'k1' in .*a has no field 'cls', which condition=cls names; its fields: txt",
        ),
        ([], {}, "a holds 0 samples, its index 0"),
        ([{"cls": "1"}], {"samples": 2}, r"tokens.npy is uint8 \[1, 2, 3\], not as its index"),
        (
            [{"cls": "1"}],
            {"tokens": {"shape": None, "dtype": "uint8", "size": 24}},
            "images of any size, which no model of one form can learn: tokenize with image_size",
        ),
    ],
    ids=["field", "none", "fewer", "any-size"],
)
def test_what_cannot_be_trained_on_is_one_line(
    fields: list[dict[str, str]], changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a", fields, **changes)
    with pytest.raises(DataError, match=message) as raised:
        read_tokens(folder, condition="cls")
    assert "\n" not in str(raised.value)


def test_unfinished_shards_are_one_line(tmp_path: Path) -> None:
    (tmp_path / ".tokenize").mkdir()
    with pytest.raises(DataError, match="is incomplete: run the same vqtrain tokenize again"):
        read_tokens(tmp_path, condition=None)


def of(conditions: list[list[int]]) -> TokenArrays:
    ids = np.zeros((1, 1), np.uint16)
    return TokenArrays(token_ids=ids, conditions=np.array(conditions, np.int64), digest="")


def test_conditions_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(ConfigError, match="in training and validation alike"):
        condition_of(of([[1]]), of([[1] * 64]))
    with pytest.raises(ConfigError, match="below 1,000,000: number them from 0"):
        condition_of(of([[1]]), of([[1_000_000]]))
    # A class of validation that was never trained on has a place, too.
    assert condition_of(of([[1]]), of([[5]])).size == 6
