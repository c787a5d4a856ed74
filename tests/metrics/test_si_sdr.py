"""SI-SDR against torchmetrics and values worked out by hand."""

import inspect

import pytest
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from vqtrain.errors import ConfigError
from vqtrain.metrics.si_sdr import SISDR


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_si_sdr_equals_torchmetrics(channels: int, noise: float) -> None:
    original = torch.randn(3, channels, 500) * 0.1 + 0.05  # with means, which are kept
    reconstruction = 0.7 * original + noise * 0.1 * torch.randn(3, channels, 500)
    expected = scale_invariant_signal_distortion_ratio(reconstruction.double(), original.double())
    torch.testing.assert_close(SISDR()(reconstruction, original), expected.mean(1))


def test_silence_and_equal_sounds_have_the_bounds() -> None:
    sound, silence = torch.randn(1, 1, 64), torch.zeros(1, 1, 64)
    pairs = [(sound, sound), (silence, silence), (sound, silence), (silence, sound)]
    values = SISDR()(*map(torch.cat, zip(*pairs, strict=True)))
    assert values.tolist() == [100.0, 100.0, -30.0, -30.0]


def test_anything_but_pairs_of_sounds_as_floats_is_refused_at_run_time() -> None:
    # Without the checks that the tests switch on for every annotation, as in a training run.
    call, sound = inspect.unwrap(SISDR.__call__), torch.zeros(1, 1, 8)
    with pytest.raises(TypeError, match=r"si_sdr takes floats in \[-1, 1\], got torch.uint8"):
        call(SISDR(), sound, sound.byte())
    with pytest.raises(ValueError, match="one shape"):
        call(SISDR(), sound, sound[..., 1:])
    with pytest.raises(ConfigError, match="si_sdr takes sounds, with 1 axes; these have 2"):
        call(SISDR(), sound[..., None], sound[..., None])
