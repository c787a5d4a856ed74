"""The discriminator of complex spectra against torchaudio's transform and the paper's sizes."""

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional as F
from torchaudio.transforms import Spectrogram

from vqtrain.discriminators.msstft import MSSTFT
from vqtrain.errors import ConfigError


def msstft(**changes: object) -> MSSTFT:
    arguments = {"in_channels": 2, "channels": 3, "frames": [64, 32], "sample_size": (200,)}
    return MSSTFT(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data


def papers(network: MSSTFT, samples: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
    logits, features = [], []
    for frame, layers in zip((64, 32), network.networks, strict=True):
        options = {"wkwargs": {"dtype": torch.float64}, "power": None, "center": False}
        z = Spectrogram(frame, hop_length=frame // 4, normalized=True, **options)(samples)
        x = torch.cat([z.real, z.imag], dim=1).transpose(2, 3)
        maps = []
        for number, layer in enumerate(layers):
            weight = layer.weight
            if number > 0:  # g v / |v|, a norm for each output channel
                g, v = (getattr(layer.parametrizations.weight, f"original{n}") for n in (0, 1))
                weight = g * v / v.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            dilation = (1, 1, 2, 4, 1, 1)[number]
            time, frequencies = weight.shape[2:]
            x = F.conv2d(
                x,
                weight,
                layer.bias,
                stride=(1, 2 if 1 <= number <= 3 else 1),
                padding=(dilation * (time // 2), frequencies // 2),
                dilation=(dilation, 1),
            )
            if number < 5:
                x = torch.where(x > 0, x, 0.3 * x)
                maps.append(x)
        logits.append(x)
        features.append(maps)
    return logits, features


def test_logits_features_and_gradients_are_the_papers() -> None:
    network = msstft().double()
    samples = torch.randn(2, 2, 200, dtype=torch.float64, requires_grad=True)
    found, (logits, features) = network.judge(samples), papers(network, samples)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(network(samples), logits)
    gradients = [
        grad(sum(each.square().sum() for each in logits), [samples, *network.parameters()])
        for logits in (found.logits, logits)
    ]
    torch.testing.assert_close(*gradients)


def test_it_has_as_many_parameters_as_the_papers_network() -> None:
    network = msstft(
        in_channels=1, channels=32, frames=[2048, 1024, 512, 256, 128], sample_size=(2048,)
    )
    # Kernels of 3 x 9 from two channels and three times from 32, and of 3 x 3 to 32 and to 1; each
    # with a bias, and all but the first with a norm, for each output channel.
    each = 2 * 32 * 27 + 32 + 3 * (32 * 32 * 27 + 64) + 32 * 32 * 9 + 64 + 32 * 9 + 2
    assert sum(p.numel() for p in network.parameters()) == 5 * each == 472_330


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": [63]}, r"frames must be even numbers of at least 4, got \[63\]"),
        ({"sample_size": (63,)}, "frames must be no longer than a sound of 63 samples"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        msstft(**changes)
