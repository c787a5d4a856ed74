"""``vqtrain train``: from overrides to a run directory."""

from typing import final

from vqtrain.app.base import Command
from vqtrain.app.parts.compose import CommandLine, compose, lookup_config


@final
class Train(Command):
    """Trains a tokenizer."""

    is_composed = True

    def run(self, *, words: list[str], command_line: CommandLine) -> int:
        """Train, or show the configuration."""
        composed = None
        if command_line.print_config or lookup_config(command_line)["resume"] is None:
            # Here, so that a wrong word is answered before Lightning is imported.
            composed = compose("train", command_line)
        if command_line.print_config:
            from vqtrain.app.parts.planned import print_config

            return print_config(command_line)
        from vqtrain.app.parts.training import train

        return train(command_line, words, composed)
