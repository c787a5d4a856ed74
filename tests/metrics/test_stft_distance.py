"""The distance of spectra against torchaudio's transform."""

import torch
from torchaudio.transforms import Spectrogram

from vqtrain.metrics.stft_distance import STFTDistance


def test_it_is_the_distance_of_the_papers_evaluation() -> None:
    original = torch.randn(2, 2, 3000).double() * torch.tensor([0.1, 1e-7])[:, None, None]
    reconstruction = original * 1.1 + 1e-6 * torch.randn(2, 2, 3000)
    expected = torch.zeros(2, dtype=torch.float64)
    for frame in (2048, 512):
        options = {"power": 1.0, "wkwargs": {"dtype": torch.float64}}
        transform = Spectrogram(frame, hop_length=frame // 4, **options)
        x, y = transform(reconstruction), transform(original)
        logs = (x.clamp(1e-5).pow(2).log10() - y.clamp(1e-5).pow(2).log10()).abs()
        expected += (x - y).abs().mean((1, 2, 3)) + logs.mean((1, 2, 3))
    torch.testing.assert_close(STFTDistance()(reconstruction, original), expected)


def test_it_ignores_a_sign_and_takes_silence() -> None:
    sound, silence = torch.randn(1, 1, 1025), torch.zeros(1, 1, 1025)
    assert STFTDistance()(-sound, sound).item() == 0.0
    assert STFTDistance()(silence, silence).item() == 0.0
