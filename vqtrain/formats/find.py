"""The words of formats: a file of this folder is a format, and its functions say what it can do.

``export(tokenizer, out, *, images, **options) -> Agreement`` writes a tokenizer, and
``convert(path, **options) -> Tokenizer`` reads one. Options are keys of the command.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from vqtrain import formats
from vqtrain.build import unknown
from vqtrain.errors import ConfigError

Verb = Literal["export", "convert"]


@cache
def words(verb: Verb) -> list[str]:
    """List the formats that can be exported to, or converted from."""
    names = [module.name for module in pkgutil.iter_modules(formats.__path__)]
    return sorted(name for name in names if _function(verb, name) is not None)


def find(verb: Verb, word: str) -> Callable[..., Any]:
    """Return a format's function.

    Raises:
        ConfigError: If there is no such format.
    """
    if word not in words(verb):
        key = {"export": "format", "convert": "kind"}[verb]
        raise ConfigError(unknown(key, word, words(verb)))
    function = _function(verb, word)
    assert function is not None, "words lists those that have it"
    return function


def about(verb: Verb, word: str) -> str:
    """Say what a format is, in the first line of its file."""
    first_line = str(inspect.getdoc(inspect.getmodule(find(verb, word)))).partition("\n")[0]
    return first_line.replace("``", "")


def _function(verb: Verb, name: str) -> Callable[..., Any] | None:
    module = importlib.import_module(f"{formats.__name__}.{name}")
    function = getattr(module, verb, None)
    is_own = function is not None and function.__module__ == module.__name__
    return function if is_own else None
