"""Train, compare and export VQ-VAE and VQGAN image tokenizers."""

import importlib
from typing import TYPE_CHECKING

from vqtrain.version import __version__

if TYPE_CHECKING:
    from vqtrain.app.parts.python import build_training
    from vqtrain.tokenizer.model import Tokenizer

__all__ = ["Tokenizer", "__version__", "build_training"]

# Importing torch and Lightning takes seconds; `vqtrain --help` needs neither.
HOMES = {"Tokenizer": "vqtrain.tokenizer.model", "build_training": "vqtrain.app.parts.python"}


def __getattr__(name: str) -> object:
    if name in HOMES:
        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f"module 'vqtrain' has no attribute {name!r}")
