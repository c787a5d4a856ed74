"""From the ``logger`` config group to a tracker. No package is imported that is not asked for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from vqtrain.build import bind, unknown
from vqtrain.errors import ConfigError
from vqtrain.training.trackers.base import Tracker
from vqtrain.training.trackers.lightning import LoggerTracker
from vqtrain.training.trackers.tensorboard import TensorboardTracker
from vqtrain.training.trackers.wandb import WandbSettings, WandbTracker

KINDS = ("none", "wandb", "tensorboard", "csv", "mlflow")


def build_tracker(
    settings: Mapping[str, Any],
    *,
    logger: Logger | None,
    run_dir: Path,
    name: str,
    config: Mapping[str, object],
    first_step: int,
    warn: Callable[[str], None],
) -> Tracker | None:
    """Build what the ``logger`` group describes; on global rank 0 only.

    Args:
        settings: The group, as plain data.
        logger: What ``trackers.lightning.build_logger`` returned.
        run_dir: The run directory; it exists.
        name: The run's name.
        config: The whole configuration, as plain data.
        first_step: 0, or the step that a resumed run continues from.
        warn: Prints a line for the user.

    Raises:
        ConfigError: If a key is unknown or wrong, the package is not installed, or it cannot begin.
    """
    if logger is not None:
        return LoggerTracker(logger, config=config, warn=warn)
    keys = dict(settings)
    kind = str(keys.pop("kind", None))
    if kind not in KINDS:
        raise ConfigError(f"logger.kind: {unknown('kind', kind, KINDS)}")
    if kind == "wandb":
        return WandbTracker(
            settings=bind(WandbSettings, keys, where="logger"),
            run_dir=run_dir,
            name=name,
            config=config,
            warn=warn,
        )
    if keys:
        raise ConfigError(f"logger: {unknown('key', next(iter(keys)), ())}")
    if kind == "none":
        return None
    return TensorboardTracker(
        folder=run_dir / "tensorboard", config=config, first_step=first_step, warn=warn
    )
