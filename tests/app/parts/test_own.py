"""Parts of one's own in a run: what they do wrong is said before it starts."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from vqtrain.app.parts.build import build_module, find_metrics
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings
from vqtrain.errors import ConfigError

OWN = """
import torch
from torch import nn

from vqtrain.discriminators.base import Discriminator
from vqtrain.encoders.base import Encoder
from vqtrain.losses.base import LossTerm
from vqtrain.metrics.base import SampleMetric


class Unfinished(Encoder):
    out_channels, downsampling = 8, (4, 4)

    def forward(self, samples):
        return self.layer(samples)


class PerSample(LossTerm):
    def forward(self, reconstructions, samples):
        return (reconstructions - samples).abs().flatten(1).mean(1)


class Judge(Discriminator):
    def forward(self, samples):
        return self.head(samples)


class Worse(SampleMetric):
    name = title = definition = "worse"
    higher_is_better = True

    def __call__(self, reconstruction, original):
        return (reconstruction.double() - original.double()).abs().flatten(1).mean(1)
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["encoder={}:Unfinished"],
            "encoder={}:Unfinished: *own_parts.py:15: AttributeError: 'Unfinished' object has no",
        ),
        (
            ["loss/mine={}:PerSample"],
            "loss.mine={}:PerSample: *must be a finite float32 scalar, got *shape [2]",
        ),
        (
            ["discriminator={}:Judge", "loss.adversarial.start_step=1"],
            "discriminator={}:Judge: *own_parts.py:25: AttributeError: 'Judge' object",
        ),
        (["metrics=[psnr,{}:Worse]"], "metrics={}:Worse: *a better value, and higher is declared"),
    ],
    ids=["encoder", "loss", "discriminator", "metric"],
)
def test_what_a_part_of_ones_own_does_wrong_is_one_line_with_its_name(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    typed = [word.format("own_parts") for word in words]
    small = ["data.image_size=16", "decoder.channels=8", "trainer.accelerator=cpu"]
    config = compose("train", read_command_line([*typed, *small]))
    settings = Settings.of(config)
    is_metric = typed[0].startswith("metrics")
    call = partial(find_metrics, device=torch.device("cpu")) if is_metric else build_module
    with pytest.raises(ConfigError) as raised:
        call(config, settings)
    found = str(raised.value)
    assert "\n" not in found
    start, *rest = message.format("own_parts").split("*")
    assert found.startswith(start)
    assert all(part in found for part in rest), found
