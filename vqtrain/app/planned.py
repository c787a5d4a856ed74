"""A run that the doctor examines: built from its configuration, without downloads."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from vqtrain import weights
from vqtrain.app.build import Settings, build_module
from vqtrain.data.sources.find import open_images
from vqtrain.doctor import images
from vqtrain.doctor.findings import Finding
from vqtrain.doctor.speed import Planned
from vqtrain.layers.lpips import LPIPS
from vqtrain.losses.perceptual import PerceptualLoss
from vqtrain.training.launch import quiet_libraries
from vqtrain.training.settings import LPIPS_NETWORKS


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
    index = open_images(settings.data.train, role="training")
    return images.examine(build_planned(config, settings), index)


def build_planned(config: Mapping[str, Any], settings: Settings) -> Planned:
    """Build the networks of a run; downloads nothing.

    Where the perceptual network's file is not here its weights are random, which takes as long.

    Raises:
        VqtrainError: If the run would be refused.
    """
    planned = partial(Planned, data=settings.data, trainer=settings.trainer, seed=config["seed"])
    perceptual = config["loss"]["perceptual"]
    network, weight = perceptual["network"], perceptual["weight"]
    is_known = weight != 0 and network in LPIPS_NETWORKS and config["weights"][network] is None
    if not is_known or weights.cache_path(network).is_file():
        module = build_module(config, settings)
        return planned(module=module, remark="")
    loss = {**config["loss"], "perceptual": {**perceptual, "weight": 0}}
    module = build_module({**config, "loss": loss}, settings)
    lpips = LPIPS(network=network)
    for parameter in lpips.parameters():
        nn.init.normal_(parameter, std=0.02)
    module.objective.perceptual = PerceptualLoss(network=lpips, weight=weight)
    remark = f"; with random weights of {network}, whose file is not here"
    return planned(module=module, remark=remark)
