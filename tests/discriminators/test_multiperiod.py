"""The multi-period discriminator against the paper's formula and sizes."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional as F

from vqtrain.discriminators.multiperiod import MultiPeriod
from vqtrain.errors import ConfigError


def multiperiod(**changes: object) -> MultiPeriod:
    arguments = {"in_channels": 2, "channels": 1, "periods": [2, 5], "sample_size": (401,)}
    return MultiPeriod(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data


def papers(network: MultiPeriod, samples: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Convolve every p-th sample as a sound of its own."""
    logits, features = [], []
    for period, layers in zip((2, 5), network.networks, strict=True):
        padded = F.pad(samples, (0, -samples.shape[2] % period), mode="reflect")
        columns = [padded[..., place::period] for place in range(period)]
        maps = []
        for number, layer in enumerate(layers):
            weight, padding = layer.weight[..., 0], (2 if number < 5 else 1)
            stride = 3 if number < 4 else 1
            columns = [
                F.conv1d(x, weight, layer.bias, stride=stride, padding=padding) for x in columns
            ]
            if number < 5:
                columns = [torch.where(x > 0, x, 0.1 * x) for x in columns]
                maps.append(torch.stack(columns, dim=-1))
        logits.append(torch.stack(columns, dim=-1))
        features.append(maps)
    return logits, features


def test_logits_features_and_gradients_are_the_papers() -> None:
    network = multiperiod().double()
    samples = torch.randn(2, 2, 401, dtype=torch.float64, requires_grad=True)
    found, (logits, features) = network.judge(samples), papers(network, samples)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.features, features)
    gradients = [
        grad(sum(each.square().sum() for each in logits), [samples, *network.parameters()])
        for logits in (found.logits, logits)
    ]
    torch.testing.assert_close(*gradients)


def test_it_has_as_many_parameters_as_the_papers_network() -> None:
    with torch.device("meta"):
        network = multiperiod(in_channels=1, channels=32, periods=[2, 3, 5, 7, 11])
    widths = [1, 32, 128, 512, 1024, 1024]
    pairs = pairwise(widths)
    # A weight of 5 values for each pair of channels, a bias and a norm for each output channel.
    each = sum(5 * a * b + 2 * b for a, b in pairs) + 3 * 1024 + 2
    assert sum(p.numel() for p in network.parameters()) == 5 * each == 41_105_770


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"periods": [2, 2]}, r"periods must be different numbers of at least 2, got \[2, 2\]"),
        ({"periods": [402]}, "periods must be no longer than a sound of 401 samples"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        multiperiod(**changes)
