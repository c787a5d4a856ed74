"""Validation gives the same numbers on any number of ranks, to the last digit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
import json
from dataclasses import replace
from pathlib import Path
import numpy as np
from lightning.pytorch import Trainer
from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.settings import Settings
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.data.sources.find import open_samples
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData
from vqtrain.training.validation import Validation
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.ssim import SSIM

config = compose("train", read_command_line(WORDS))
settings = Settings.of(config)
module = build_module(config, settings)
trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                  enable_model_summary=False, enable_progress_bar=False)
pictures = open_samples("PICTURES", role="validation")
results = {}
for count in (1, 2, 7, 33):
    index = pictures.select(np.arange(count))
    if count == 33:  # of which one cannot be read
        index = replace(index, offsets=np.where(np.arange(33) == 5, 10**6, index.offsets))
    data = TrainingData(training=index, validation=index, settings=settings.data, seed=0, start=0,
                        num_nodes=1)
    bad_samples = BadSamples(path=Path(folder) / "bad", data=data, say=print)
    metrics = [PSNR(), SSIM()]
    validation = Validation(data=data, metrics=metrics, best=metrics[0], images=Path(folder),
                            bad_samples=bad_samples)
    results[count] = validation.measure(trainer, module)
(Path(folder) / f"{rank}.json").write_text(json.dumps(results))
"""


@pytest.mark.ddp
def test_any_number_of_ranks_measures_the_same(
    tiny: list[str], pictures: Path, run_ranks: Callable[[str, int], Path]
) -> None:
    script = SCRIPT.replace("WORDS", repr(tiny)).replace("PICTURES", str(pictures))
    found = {
        ranks: [json.loads((run_ranks(script, ranks) / "0.json").read_text())]
        for ranks in (1, 2, 4)
    }
    (alone,) = found[1]
    assert alone.keys() == {"1", "2", "7", "33"}
    assert len({results["val/psnr"] for results in alone.values()}) == 4
    for ranks in (2, 4):
        assert found[ranks] == [alone]
