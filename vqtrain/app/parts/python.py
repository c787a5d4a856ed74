"""Training from Python or a notebook, with a Lightning ``Trainer`` of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqtrain.app.parts.build import Settings, begin_from, build_module, build_validation, open_data
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining


@dataclass(frozen=True, kw_only=True)
class Training:
    """What ``Trainer.fit(training.module, training.data)`` takes.

    Attributes:
        config: The whole configuration, as plain data.
        module: The tokenizer, its loss and its optimizers.
        data: The images.
    """

    config: Mapping[str, Any]
    module: TokenizerTraining
    data: TrainingData


def build_training(*words: str, folder: str | Path = ".") -> Training:
    """Build what a Lightning ``Trainer`` trains.

    Args:
        words: Of ``vqtrain train``, such as ``"experiment=demo"`` and ``"codebook=fsq"``. The keys
            ``resume``, ``run_dir``, ``logger`` and ``callbacks`` have no effect.
        folder: For ``images/``, where each validation saves originals above reconstructions.

    Raises:
        VqtrainError: As ``vqtrain train`` does before the first step.
    """
    config = compose("train", read_command_line(words))
    settings = Settings.of(config)
    module = build_module(config, settings)
    if config["init_from"] is not None:
        begin_from(module, config["init_from"])
    data = open_data(settings, config["seed"], None)
    device = torch.device("cuda" if settings.trainer.uses_gpu else "cpu")
    bad_samples = BadSamples(path=Path(folder) / "bad_samples.jsonl", data=data, say=print)
    module.validation = build_validation(config, settings, data, Path(folder), device, bad_samples)
    return Training(config=config, module=module, data=data)
