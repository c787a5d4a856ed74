"""TensorBoard: event files in ``run_dir/tensorboard``."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import yaml

from vqtrain.errors import ConfigError
from vqtrain.training.trackers.base import IMAGES, Leniency, Tracker, first_line, read_image


@final
class TensorboardTracker(Tracker):
    """Writes event files for TensorBoard.

    Args:
        folder: Where they go.
        config: The whole configuration, as plain data.
        first_step: 0, or the step that a resumed run continues from; later ones are purged.
        warn: Prints a line for the user.

    Raises:
        ConfigError: If tensorboard is not installed or the folder cannot be written.
    """

    def __init__(
        self,
        *,
        folder: Path,
        config: Mapping[str, object],
        first_step: int,
        warn: Callable[[str], None],
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "logger=tensorboard needs a package: pip install tensorboard"
            ) from error
        purge_step = first_step + 1 if first_step else None
        try:
            self.writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)
        except OSError as error:
            raise ConfigError(f"logger=tensorboard cannot begin: {first_line(error)}") from error
        self.leniency = Leniency(name="tensorboard", warn=warn)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        with self.leniency():
            # Four spaces make it code in Markdown.
            self.writer.add_text("config", textwrap.indent(text, " " * 4), first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics."""
        with self.leniency():
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def image(self, step: int, file: Path) -> None:
        """Write an image."""
        with self.leniency():
            pixels = read_image(file)
            axes = "HWC" if pixels.ndim == 3 else "HW"
            self.writer.add_image(IMAGES, pixels, step, dataformats=axes)

    def close(self, exit_code: int) -> None:
        """Write what is pending; TensorBoard does not record how a run ended."""
        del exit_code
        with self.leniency():
            self.writer.close()
