"""Training from Python or a notebook, with a Lightning ``Trainer`` of the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vqtrain.app.parts.build import build_module, find_metrics
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.data import open_data, texts_needed
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.settings import Settings
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import SampleData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Training:
    """What ``Trainer.fit(training.module, training.data)`` takes.

    Attributes:
        config: The whole configuration, as plain data.
        module: The tokenizer, its loss and its optimizers.
        data: Its samples.
    """

    config: Mapping[str, Any]
    module: TokenizerTraining
    data: SampleData


def build_training(
    *words: str,
    folder: str | Path = ".",
    data: SampleData | None = None,
    sample_size: Sequence[int] | None = None,
) -> Training:
    """Build what a Lightning ``Trainer`` trains.

    Args:
        words: Of ``vqtrain train``, such as ``"experiment=demo"`` and ``"codebook=fsq"``. The keys
            ``resume``, ``run_dir``, ``logger`` and ``callbacks`` have no effect.
        folder: For ``images/``, where each validation saves originals above reconstructions.
        data: A data module of your own, of samples of any kind; None for the images of the words.
            Of the keys of data, ``data.channels`` and ``data.range`` then describe its samples.
        sample_size: With ``data``: the size of each axis of a sample besides its channels.

    Raises:
        VqtrainError: As ``vqtrain train`` does before the first step.
    """
    config = compose("train", read_command_line(words))
    settings = Settings.of(config)
    module = build_module(config, settings, sample_size)
    list(map(print, begin(module, config)))
    device = torch.device("cuda" if settings.trainer.uses_gpu else "cpu")
    metrics, best = find_metrics(config, settings, device, sample_size)
    texts = texts_needed(module.objective.alignment, metrics)
    own, bad_samples = data, None
    if own is None:
        images = open_data(settings, config["seed"], None, module.tokenizer.downsampling, texts)
        bad_samples = BadSamples(path=Path(folder) / "bad_samples.jsonl", data=images, say=print)
        own = images
    module.validation = Validation(
        data=own,
        metrics=metrics,
        best=best,
        images=Path(folder) / "images",
        bad_samples=bad_samples,
    )
    return Training(config=config, module=module, data=own)
