"""What is built from a configuration, and what parts learn of its data."""

import pytest
import torch

from vqtrain.app.parts.build import build_module, find_metrics
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings


@pytest.mark.parametrize(("data", "rate"), [("sound", 8000), ("image", None)])
def test_losses_and_metrics_learn_the_sample_rate_of_sounds(data: str, rate: int | None) -> None:
    words = [f"data={data}", "trainer.accelerator=cpu"]
    if data == "sound":
        words += ["data.sample_rate=8000", "encoder=jukebox", "decoder=jukebox"]
        words += ["encoder.channels=4", "decoder.channels=4", "loss/perceptual=mel"]
        words += ["metrics=[si_sdr,mel_distance]"]
    config = compose("train", read_command_line(words))
    settings = Settings.of(config)
    metrics, _ = find_metrics(config, settings, torch.device("cpu"))
    assert {metric.sample_rate for metric in metrics} == {rate}
    if data == "sound":
        loss = build_module(config, settings).objective.terms["perceptual"].loss
        assert loss.sample_rate == 8000
