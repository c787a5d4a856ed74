"""Lightning's loggers: CSV files, MLflow, and any other by ``logger.kind=package.module:Class``."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger
from lightning.pytorch.loggers.logger import DummyLogger

from vqtrain.build import bind, build_third_party
from vqtrain.errors import ConfigError
from vqtrain.training.trackers.base import Leniency, Tracker, first_line


def build_logger(
    settings: Mapping[str, object], *, run_dir: Path, name: str, is_main: bool
) -> Logger | None:
    """Build the logger of Lightning's that the ``logger`` group names, if it names one.

    Args:
        settings: The group, as plain data.
        run_dir: The run directory; it exists.
        name: The run's name.
        is_main: Whether this is the process that logs; the others get a logger that does nothing.

    Raises:
        ConfigError: If a key is unknown or wrong, or a package is not installed.
    """

    def csv(*, flush_every: int) -> Logger:
        return CSVLogger(run_dir, name="csv", flush_logs_every_n_steps=flush_every)

    def mlflow(*, experiment: str, tracking_uri: str | None) -> Logger:
        return MLFlowLogger(
            experiment_name=experiment,
            run_name=name,
            # MLflow no longer takes plain folders, Lightning's default.
            tracking_uri=tracking_uri
            or os.environ.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{run_dir.resolve()}/mlflow.db",
            save_dir=None,
        )

    keys = dict(settings)
    kind = str(keys.pop("kind", None))
    if not is_main:
        return DummyLogger() if ":" in kind or kind in ("csv", "mlflow") else None
    if ":" in kind:
        context = {"save_dir": str(run_dir)}
        logger: Logger = build_third_party(
            kind, keys, contract=Logger, where="logger", context=context
        )
        return logger
    try:
        if kind == "csv":
            return bind(csv, keys, where="logger")
        return bind(mlflow, keys, where="logger") if kind == "mlflow" else None
    except ModuleNotFoundError as error:
        raise ConfigError(f"logger={kind} needs a package: pip install {kind}") from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"logger={kind} cannot begin: {first_line(error)}") from error


@final
class LoggerTracker(Tracker):
    """Passes metrics to a logger of Lightning's; it receives no images.

    Args:
        logger: Takes the metrics, by our count of steps.
        config: The whole configuration, as plain data.
        warn: Prints a line for the user.
    """

    def __init__(
        self, logger: Logger, *, config: Mapping[str, object], warn: Callable[[str], None]
    ) -> None:
        self.logger = logger
        self.leniency = Leniency(name=type(logger).__name__, warn=warn)
        with self.leniency():
            logger.log_hyperparams(dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics."""
        with self.leniency():
            self.logger.log_metrics(dict(values), step=step)

    def image(self, step: int, file: Path) -> None:
        """Leave images in the run directory."""

    def close(self, exit_code: int) -> None:
        """Write what is pending."""
        with self.leniency():
            self.logger.finalize("success" if exit_code == 0 else "failed")
