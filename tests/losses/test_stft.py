"""Distances of spectra against torchaudio's transform and the papers' formulas, with gradients."""

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torchaudio.transforms import Spectrogram

from vqtrain.errors import ConfigError
from vqtrain.losses.stft import STFT

FORM = {"frames": [64, 32], "hops": [12, 8], "windows": [60, 20]}


def loss_of(**changes: object) -> STFT:
    arguments = {"convergence": 0.7, "relative": True, "log": 0.3, "sample_size": (200,)}
    return STFT(**{**FORM, **arguments, **changes})  # type: ignore[arg-type]  # plain data


def magnitudes(sound: Tensor, frame: int, hop: int, window: int) -> Tensor:
    options = {"power": 1.0, "wkwargs": {"dtype": torch.float64}}
    return Spectrogram(frame, win_length=window, hop_length=hop, **options)(sound)


def papers(x: Tensor, y: Tensor, *, relative: bool, convergence: float, log: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for form in zip(*FORM.values(), strict=True):
        for one, other in zip(x, y, strict=True):
            a, b = magnitudes(one, *form), magnitudes(other, *form)
            apart = (a - b).square().sum().sqrt() / (b.square().sum().sqrt() if relative else 1)
            total = total + convergence * apart + log * (a.log() - b.log()).abs().mean()
    return total / (2 * len(x))


@pytest.mark.parametrize(
    "options", [(True, 0.7, 0.3), (False, 1.0, 0.0)], ids=["wavegan", "jukebox"]
)
def test_loss_and_gradient_are_the_papers(options: tuple[bool, float, float]) -> None:
    arguments = dict(zip(("relative", "convergence", "log"), options, strict=True))
    samples = 0.3 * torch.randn(3, 2, 200, dtype=torch.float64)
    made = (samples + 0.1 * torch.randn_like(samples)).requires_grad_()
    found, expected = loss_of(**arguments)(made, samples), papers(made, samples, **arguments)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad(found, made), grad(expected, made))


def test_a_silent_sample_weighs_no_more_than_faint_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 20_000, generator=generator)
    loss = loss_of(log=0.0, convergence=1.0, sample_size=(20_000,))
    # Noise at 0.1 beside silence, which counts as noise at 0.001.
    assert loss(0.1 * noise, 0 * noise).item() == pytest.approx(100, rel=0.05)
    made = torch.zeros(1, 1, 200, requires_grad=True)
    loss_of()(made, torch.zeros(1, 1, 200)).backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": [63, 32]}, r"frames must be even numbers of at least 2, got \[63, 32\]"),
        ({"sample_size": (32,)}, "frames must be shorter than twice a sound of 32 samples"),
        ({"sample_size": (32, 32)}, "frames are of sounds, with 1 axes; samples here have 2"),
        ({"hops": [12]}, r"hops must be one number for each of frames=\[64, 32\]"),
        ({"windows": [65, 20]}, "windows must be one number for each of frames"),
        ({"convergence": 0.0, "log": 0.0}, "must not both be 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loss_of(**changes)
