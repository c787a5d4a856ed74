"""``vqtrain sweep``: one run for each combination of values, one table, one plot."""

from typing import Annotated, final

from vqtrain.app.base import Command
from vqtrain.app.parts.axes import compose_first
from vqtrain.app.parts.compose import CommandLine
from vqtrain.ranges import at_least


@final
class SweepCommand(Command):
    """Trains, evaluates and probes one tokenizer for each combination of values."""

    is_composed = True

    def run(
        self,
        *,
        words: list[str],
        command_line: CommandLine,
        images: str | list[str | dict[str, object]] | None,
        sweep_dir: str | None,
        probe: str | list[str] | None,
        probe_options: dict[str, object],
        launcher: str,
        devices: Annotated[int, at_least(1)] | None,
        launcher_options: dict[str, object],
    ) -> int:
        """Sweep, and say what came of it."""
        compose_first(command_line)
        from vqtrain.app.parts.sweep import sweep

        return sweep(
            command_line,
            words,
            images=images,
            sweep_dir=sweep_dir,
            probe=probe,
            probe_options=probe_options,
            launcher=launcher,
            devices=devices,
            launcher_options=launcher_options,
        )
