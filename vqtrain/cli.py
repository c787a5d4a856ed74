"""The command line: finds the command, and turns what went wrong into one line and a number."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from vqtrain.build import config_of, kinds, unknown
from vqtrain.errors import ConfigError, FailedError, Interrupted, VqtrainError
from vqtrain.ops.screen import lasting_screen
from vqtrain.version import __version__

HELP = """vqtrain {version}: train, compare and export VQ-VAE and VQGAN tokenizers

usage: vqtrain COMMAND [key=value ...]

commands:
{commands}

vqtrain COMMAND --help shows the command's keys and examples. A command of another package is
package.module:Class.
Try it: vqtrain train experiment=demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 1 for a failure after work has begun, 2 for wrong input, 130 for Ctrl-C, 143 for
        SIGTERM, 128 + n for signal n.
    """
    with lasting_screen():
        return report(arguments)


def report(arguments: Sequence[str] | None) -> int:
    """Run a command, and turn what goes wrong into one line and a number."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Of a process that is gone, torch prints a C++ backtrace next to our own line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if os.environ.get("LOCAL_RANK", "0") != "0":
        # Ctrl-C goes to every process of a terminal; until this one trains, the first one answers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return run(words)
    except VqtrainError as error:
        sys.stderr.write(f"vqtrain: {' '.join(str(error).split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Interrupted as interrupted:
        return 128 + interrupted.signal_number
    except OSError as error:
        # No mistake of ours: a disk is full, a name is too long, a folder must not be read.
        where = f": {error.filename}" if error.filename else ""
        sys.stderr.write(f"vqtrain: {error.strerror or error}{where}\n")
        return 2 if error.errno == errno.ENAMETOOLONG else FailedError.exit_code


def run(words: list[str]) -> int:
    """Find the command and call it."""
    if not words or words[0] in ("-h", "--help", "help"):
        commands = [f"  {word:<12} {summary_of(word)}" for word in kinds("command")]
        sys.stdout.write(HELP.format(version=__version__, commands="\n".join(commands)))
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"{__version__}\n")
        return 0
    if ":" not in words[0] and words[0] not in kinds("command"):
        raise ConfigError(unknown("command", words[0], kinds("command")))
    # Commands are imported when they are called: torch and Lightning take seconds.
    return int(importlib.import_module("vqtrain.app.parts.keys").main(words[0], words[1:]))


def summary_of(word: str) -> str:
    """Return the first line of a command's yaml; importing a parser of yaml would take longer."""
    with config_of("command", word).open(encoding="utf-8") as file:
        return file.readline().removeprefix("# ").strip()
