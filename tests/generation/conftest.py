"""What tests of models over ids share: a reference for the transformer."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def in_loops() -> ModuleType:
    """The transformer written with loops."""
    spec = importlib.util.spec_from_file_location(
        "in_loops", Path(__file__).with_name("in_loops.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
