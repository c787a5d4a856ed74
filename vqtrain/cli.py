"""The command line: finds the command, and turns what went wrong into one line and a number."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from vqtrain.build import unknown
from vqtrain.errors import ConfigError, Interrupted, VqtrainError
from vqtrain.version import __version__

COMMANDS = {
    "train": "train a tokenizer",
    "evaluate": "measure tokenizers: how good, at which rate, at which cost",
    "export": "write a tokenizer as safetensors, ONNX, a PyTorch graph or for diffusers",
    "convert": "make a tokenizer of someone else's checkpoint",
    "tokenize": "turn images into shards of token ids",
    "reconstruct": "show pictures beside their reconstructions and ids",
    "report": "write a page of a run, a sweep or an evaluation",
    "sweep": "train one tokenizer for each combination of values, and compare them",
    "pack": "pack images into WebDataset shards",
    "doctor": "say what works on this machine, what is missing and how to get it",
}

HELP = f"""vqtrain {__version__}: train, compare and export VQ-VAE and VQGAN image tokenizers

usage: vqtrain COMMAND [key=value ...]

commands:
{chr(10).join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())}

vqtrain COMMAND --help shows the command's keys and examples.
Try it: vqtrain train experiment=demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 1 for a failure in mid-run, 2 for wrong input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Of a process that is gone, torch prints a C++ backtrace beside the line that we print.
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
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough


def run(words: list[str]) -> int:
    """Find the command and call it."""
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"{__version__}\n")
        return 0
    if words[0] not in COMMANDS:
        raise ConfigError(unknown("command", words[0], COMMANDS))
    # Each command is imported when it is called: torch and Lightning take seconds.
    command = importlib.import_module(f"vqtrain.app.{words[0]}")
    return int(command.main(words[1:]))
