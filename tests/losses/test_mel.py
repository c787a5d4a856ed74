"""Distances of mel spectra against torchaudio's transform and the papers' formulas."""

import pytest
import torch
from torch.autograd import grad
from torchaudio.transforms import MelSpectrogram

from vqtrain.errors import ConfigError
from vqtrain.losses.mel import Mel

ENCODEC = {"lowest": 64.0, "scale": "htk", "power": 2, "linear": 0.5, "log": 0.5, "log_power": 2}
DAC = {"lowest": 0.0, "scale": "slaney", "power": 1, "linear": 0.0, "log": 1.0, "log_power": 1}


def loss_of(**changes: object) -> Mel:
    form = {"frames": [256, 64], "mels": [20, 5], "sample_rate": 8000, "sample_size": (600,)}
    return Mel(**{**form, **ENCODEC, **changes})  # type: ignore[arg-type]  # plain data


@pytest.mark.parametrize("form", [ENCODEC, DAC], ids=["encodec", "dac"])
def test_loss_and_gradient_are_the_papers(form: dict[str, object]) -> None:
    samples = torch.randn(3, 2, 600)
    made = (samples + 0.3 * torch.randn_like(samples)).requires_grad_()
    expected = torch.zeros(())
    for frame, mels in ((256, 20), (64, 5)):
        transform = MelSpectrogram(
            8000,
            frame,
            hop_length=frame // 4,
            n_mels=mels,
            f_min=form["lowest"],
            power=form["power"],
            mel_scale=form["scale"],
            norm="slaney" if form["scale"] == "slaney" else None,
        )
        x, y = transform(made), transform(samples)
        logs = (x + 1e-5).log10() - (y + 1e-5).log10()
        if form is ENCODEC:
            expected = expected + ((x - y).abs().mean() + logs.square().mean()) / 4
        else:
            expected = expected + logs.abs().mean() / 2
    found = loss_of(**form)(made, samples)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    gradients = [torch.cat(grad(each, made)) for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5 * float(gradients[1].abs().max()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": None}, "the sample rate of the samples is unknown, and mels depend on it"),
        ({"lowest": 4000.0}, "lowest must be below 4000 Hz, half the sample rate, got 4000.0"),
        ({"mels": [20]}, r"mels must be one number of at least 1 for each of frames=\[256, 64\]"),
        ({"linear": 0.0, "log": 0.0}, "must not both be 0"),
        ({"sample_size": (128,)}, "frames must be shorter than twice a sound of 128 samples"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss_of(**changes)
