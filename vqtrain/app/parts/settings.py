"""The config groups that are not modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from vqtrain.build import bind
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.settings.kinds import bind_data
from vqtrain.errors import ConfigError
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.ranges import at_least, check, resolve_fractions
from vqtrain.training.settings import MetricsSettings, TrainerSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The config groups that are not modules, checked; shares of the run are steps."""

    data: DataSettings
    optim: OptimSettings
    discriminator: DiscriminatorOptimSettings
    trainer: TrainerSettings
    metrics: MetricsSettings

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """Check and bind the groups of a composed configuration."""
        max_steps, seed = config["trainer"]["max_steps"], config["seed"]
        if not isinstance(max_steps, int) or isinstance(max_steps, bool):
            raise ConfigError(f"trainer.max_steps must be a whole number, got {max_steps!r}")
        check("seed", seed, Annotated[int, at_least(0)])
        resolved: dict[str, Any] = resolve_fractions(config, max_steps)
        optim = dict(resolved["optim"])
        discriminator = optim.pop("discriminator")
        return cls(
            data=bind_data(resolved["data"]),
            optim=bind(OptimSettings, optim, where="optim"),
            discriminator=bind(
                DiscriminatorOptimSettings, discriminator, where="optim.discriminator"
            ),
            trainer=bind(TrainerSettings, resolved["trainer"], where="trainer"),
            metrics=bind(MetricsSettings, resolved["metrics"], where="metrics"),
        )
