"""The distance of mel spectra against torchaudio's transform."""

import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from vqtrain.errors import ConfigError
from vqtrain.metrics.mel_distance import MelDistance


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_it_is_the_distance_of_the_papers_evaluation(sample_rate: int) -> None:
    original = torch.randn(2, 1, 3000)
    reconstruction = original + 0.1 * torch.randn(2, 1, 3000)
    expected = torch.zeros(2)
    for frame, mels in ((2048, 150), (512, 80)):
        scale = {"norm": "slaney", "mel_scale": "slaney", "power": 1.0}
        transform = MelSpectrogram(sample_rate, frame, hop_length=frame // 4, n_mels=mels, **scale)
        x, y = transform(reconstruction), transform(original)
        logs = (x.clamp(1e-5).pow(2).log10() - y.clamp(1e-5).pow(2).log10()).abs()
        expected += (x - y).abs().mean((1, 2, 3)) + logs.mean((1, 2, 3))
    metric = MelDistance()
    metric.sample_rate = sample_rate
    found = metric(reconstruction, original)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=0)


def test_a_sample_rate_must_be_known() -> None:
    sound = torch.zeros(1, 1, 1025)
    with pytest.raises(ConfigError, match="mel_distance needs the sample rate of sounds"):
        MelDistance()(sound, sound)
