"""What ``import vqtrain`` hands out, and what it leaves alone until it is asked for."""

import subprocess
import sys

import pytest

import vqtrain
from vqtrain.tokenizer import model
from vqtrain.version import __version__


def test_the_package_hands_out_the_tokenizer_and_its_version() -> None:
    assert vqtrain.Tokenizer is model.Tokenizer
    assert vqtrain.__version__ == __version__
    for name in vqtrain.__all__:
        assert getattr(vqtrain, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(vqtrain, "Tokeniser")
    with pytest.raises(AttributeError, match="module 'vqtrain' has no attribute 'Tokeniser'"):
        vqtrain.Tokeniser  # noqa: B018 - looking it up is what fails
    with pytest.raises(ImportError, match="Tokeniser"):
        from vqtrain import Tokeniser  # noqa: F401 - importing it is what fails


def test_torch_is_not_loaded_before_the_tokenizer_is_asked_for() -> None:
    script = "import sys, vqtrain; print(vqtrain.__version__, 'torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [__version__, "False"]
