"""Formats are found by their file's name, and by what it can do."""

import pytest

from vqtrain.errors import ConfigError
from vqtrain.formats import onnx, safetensors
from vqtrain.formats.find import about, find, words


def test_a_format_is_a_file_with_the_function() -> None:
    assert {"safetensors", "onnx", "torch_export", "diffusers"} <= set(words("export"))
    assert find("export", "onnx") is onnx.export
    assert find("export", "safetensors") is safetensors.export
    # Both have no such function, though they import some.
    assert not {"agreement", "find"} & {*words("export"), *words("convert")}
    assert "onnx" not in words("convert")


def test_a_word_that_is_none_is_refused_by_the_key() -> None:
    with pytest.raises(ConfigError, match="unknown format 'onyx', did you mean 'onnx'"):
        find("export", "onyx")
    with pytest.raises(ConfigError, match="unknown kind"):
        find("convert", "onnx")


def test_a_format_says_what_it_is_in_a_line() -> None:
    assert about("export", "onnx").startswith("ONNX")
    assert "`" not in "".join(about("export", word) for word in words("export"))
