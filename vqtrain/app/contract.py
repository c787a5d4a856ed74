"""A check of the contract of commands."""

import inspect
import re

from vqtrain.app.base import Command
from vqtrain.app.parts.pages import CONTEXT, REQUIRED, hints_of, page_of
from vqtrain.build import package_of
from vqtrain.errors import require
from vqtrain.ranges import check as check_value
from vqtrain.ranges import choices_of

# Characters of a summary, which is one line of ``vqtrain --help``.
MAX_SUMMARY = 80


def check(command: Command) -> None:
    """Check that a command's help names every key, and that its defaults are valid.

    The command is not run.

    Args:
        command: As it is built.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    takes_any = False
    for each in inspect.signature(command.run).parameters.values():
        takes_any = takes_any or each.kind is inspect.Parameter.VAR_KEYWORD
        require(
            each.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
            and each.annotation is not inspect.Parameter.empty,
            f"{each.name} of run must be a keyword argument with a type",
        )
    package, _, module = type(command).__module__.rpartition(".")
    word = f"{package}.{module}:{type(command).__qualname__}".removeprefix(".")
    is_own = package == package_of("command")
    page = page_of(module) if is_own else page_of(word, command)
    require(
        0 < len(page.summary) <= MAX_SUMMARY,
        f"the summary must be one line of at most {MAX_SUMMARY} characters, got {page.summary!r}",
    )
    hints, named = hints_of(command.run), {key.partition(".")[0] for key in page.defaults}
    unnamed = sorted(hints.keys() - named - set(CONTEXT))
    require(not unnamed, f"the help must name the keys {unnamed}")
    unknown = sorted(named - hints.keys())
    require(takes_any or not unknown, f"run must take the keys {unknown}")
    for key, default in page.defaults.items():
        # Keys of a mapping, such as paths of weights, may speak for themselves.
        require(bool(page.meanings[key]) or "." in key, f"the help must say what {key} means")
        said = re.findall(r"[\w-]+", page.meanings[key])
        silent = [word for word in choices_of(hints.get(key)) if word not in said]
        require(not silent, f"the help must say that {key} takes {silent}")
        if key in hints and default != REQUIRED:
            check_value(key, default, hints[key])
