"""A run that the doctor examines: built from its configuration, without downloads."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from vqtrain.app.parts.build import build_module, fitting_metrics
from vqtrain.app.parts.compose import CommandLine, compose
from vqtrain.app.parts.settings import Settings
from vqtrain.data.sources.find import open_samples
from vqtrain.doctor import samples
from vqtrain.doctor.findings import Finding
from vqtrain.doctor.speed import Planned
from vqtrain.training.launch import quiet_libraries
from vqtrain.training.user_callbacks import build_callbacks
from vqtrain.weights import without_downloads


def examine(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at the images and the speed of a run.

    Args:
        config: The composed configuration.

    Returns:
        Findings, one after the other as they are made.

    Raises:
        VqtrainError: If the run would be refused; before the first finding.
    """
    quiet_libraries()
    settings = Settings.of(config)
    data = settings.data
    index = open_samples(data.train, data.media, role="training", key="data.train")
    return samples.examine(build_planned(config, settings), index)


def print_config(command_line: CommandLine) -> int:
    """Show the configuration of a run that is possible; its images and weights may be missing.

    Raises:
        VqtrainError: If it would be refused.
    """
    config = compose("train", command_line)
    settings = Settings.of(config)
    build_callbacks(config["callbacks"], settings.trainer.max_steps)
    build_planned(config, settings)
    fitting_metrics(settings)
    sys.stdout.write(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return 0


def build_planned(config: Mapping[str, Any], settings: Settings) -> Planned:
    """Build the networks of a run; downloads nothing.

    Where the file of a pretrained network is not here its weights are random, which takes as long.

    Raises:
        VqtrainError: If the run would be refused.
    """
    with without_downloads() as absent:
        module = build_module(config, settings)
    files = "file is" if len(absent) == 1 else "files are"
    remark = f"; with random weights of {', '.join(absent)}, whose {files} not here"
    return Planned(
        module=module,
        data=settings.data,
        trainer=settings.trainer,
        seed=config["seed"],
        remark=remark if absent else "",
    )
