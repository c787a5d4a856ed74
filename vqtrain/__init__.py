"""Train, compare and export VQ-VAE and VQGAN image tokenizers."""

from typing import TYPE_CHECKING

from vqtrain.version import __version__

if TYPE_CHECKING:
    from vqtrain.tokenizer.model import Tokenizer

__all__ = ["Tokenizer", "__version__"]


def __getattr__(name: str) -> type:
    # Importing torch takes a second or more; `vqtrain --help` does not need it.
    if name == "Tokenizer":
        from vqtrain.tokenizer.model import Tokenizer

        return Tokenizer
    raise AttributeError(f"module 'vqtrain' has no attribute {name!r}")
