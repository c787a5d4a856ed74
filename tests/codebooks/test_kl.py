"""The continuous baseline against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from vqtrain.codebooks.kl import KL
from vqtrain.errors import ConfigError


def test_the_divergence_by_hand() -> None:
    # Means 1 and 0, log-variances 0 and ln 2: 1/2 and (2 - 1 - ln 2) / 2; their mean.
    z = torch.tensor([[[1.0], [0.0], [0.0], [math.log(2)]]])
    expected = (0.5 + (1 - math.log(2)) / 2) / 2
    torch.testing.assert_close(KL(size=None, dim=2, kl_weight=1.0)(z).loss, torch.tensor(expected))


def test_training_draws_samples_and_eval_takes_the_mean() -> None:
    codebook = KL(size=None, dim=1, kl_weight=1.0)
    z = torch.cat([torch.full((4, 1, 50, 50), 3.0), torch.full((4, 1, 50, 50), math.log(4))], 1)
    sample = codebook(z).z_q
    assert sample.mean().item() == pytest.approx(3, abs=0.1)
    assert sample.std().item() == pytest.approx(2, abs=0.1)
    assert (codebook.eval()(z).z_q == 3).all()


def test_a_sample_passes_gradients_to_mean_and_variance() -> None:
    z = torch.randn(1, 2, 3, requires_grad=True)
    KL(size=None, dim=1, kl_weight=0.0)(z).z_q.sum().backward()
    assert z.grad is not None
    assert (z.grad[0, 0] == 1).all()
    assert (z.grad[0, 1] != 0).all()


def test_it_has_no_ids_and_says_so() -> None:
    codebook = KL(size=4096, dim=2, kl_weight=0.0)
    assert (codebook.num_codebooks, codebook.size, codebook.in_channels) == (0, 0, 4)
    assert codebook(torch.zeros(2, 4, 3, 3)).token_ids.shape == (2, 0, 3, 3)
    with pytest.raises(ConfigError, match="codebook=kl is continuous, so there are no token ids"):
        codebook.decode(torch.zeros(1, 0, 3, dtype=torch.int64))


def with_bits(*bits: float) -> Tensor:
    """Latents of one position for each number, whose two channels have half of the bits each."""
    # 1/2 m^2 nats at a variance of 1.
    mean = torch.tensor(bits).mul(math.log(2)).sqrt()[None, None].expand(1, 2, -1)
    return torch.cat([mean, torch.zeros_like(mean)], 1)


def test_the_loss_with_a_target_by_hand() -> None:
    codebook = KL(size=None, dim=2, kl_weight=0.5, target_bits=8.0)
    assert codebook.target is not None
    codebook.target.weights.copy_(torch.tensor([2.0, 10.0, 0.1]))
    quantized = codebook(with_bits(9.0, 8.25, 7.75, 4.0))
    weighted = (10 * 9.0 + 8.25 + 7.75 + 0.1 * 4.0) / 4
    # Half of 2 times the mean of the positions, in nats for each of the 2 channels.
    expected = 0.5 * 2 * weighted * math.log(2) / 2
    assert quantized.loss.item() == pytest.approx(expected, rel=1e-6)
    assert quantized.metrics["bits"].item() == pytest.approx(7.25, rel=1e-6)
    assert quantized.metrics["in_target"].item() == 0.5
    assert quantized.metrics["divergence"].item() == pytest.approx(7.25 * math.log(2) / 2, rel=1e-6)


def test_groups_have_every_nth_channel() -> None:
    codebook = KL(size=None, dim=4, kl_weight=1.0, target_bits=2.0, num_groups=2)
    mean = torch.tensor([[1.0, 0.0, 2.0, 0.0]])[..., None] * math.sqrt(2 * math.log(2))
    quantized = codebook(torch.cat([mean, torch.zeros_like(mean)], 1))
    # 1 + 4 bits in the first group, of channels 0 and 2, and none in the second.
    assert quantized.metrics["bits"].item() == pytest.approx(2.5, rel=1e-6)
    assert quantized.metrics["in_target"].item() == 0


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ((9.0, 8.5), (1.01, 1.01, 1.0)),  # 1, as below: it is the limit
        ((8.25, 8.25), (1.01, 1.0, 1.0)),
        ((7.75, 7.75), (1 / 1.01, 1.0, 1.0)),
        ((7.0, 4.0), (1 / 1.01, 1.0, 1 / 1.01)),
        ((9.0, 4.0), (1 / 1.01, 1.01, 1 / 1.01)),
    ],
)
def test_weights_follow_the_bits_of_a_step(
    bits: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    codebook = KL(size=None, dim=2, kl_weight=0.5, target_bits=8.0)
    assert codebook.target is not None
    codebook.begin_step(0, seed=0)
    for part in bits:  # in two batches
        codebook(with_bits(part))
    assert codebook.update(0)["kl_weight"].item() == 0.5
    assert codebook.target.weights.tolist() == pytest.approx(expected, rel=1e-6)
    before = codebook.target.weights.clone()
    codebook.begin_step(1, seed=0)
    codebook(with_bits(20.0))
    codebook.discard_step()
    codebook.eval()(with_bits(20.0))
    codebook.train()(with_bits(8.25))
    codebook.update(1)
    assert codebook.target.weights[0] == before[0] * 1.01


def test_weights_have_limits() -> None:
    codebook = KL(size=None, dim=2, kl_weight=1.0, target_bits=8.0)
    assert codebook.target is not None
    weights = codebook.target.weights
    for bits, start, limits in (
        ((20.0,), (1e6, 1e3, 1e-3), (1e6, 1e3, 1.01e-3)),
        ((1.0,), (1e-6, 1e3, 1e-3), (1e-6, 1e3 / 1.01, 1e-3)),
    ):
        weights.copy_(torch.tensor(start))
        codebook(with_bits(*bits))
        codebook.update(0)
        assert weights.tolist() == pytest.approx(limits, rel=1e-6)


def test_a_small_training_comes_to_the_target() -> None:
    # One layer there, one back, on data of 16 channels of falling variance.
    data = torch.randn(4096, 16) * torch.linspace(2, 0.2, 16)
    codebook = KL(size=None, dim=2, kl_weight=1e-2, target_bits=4.0).train()
    encoder, decoder = nn.Linear(16, 4), nn.Linear(2, 16)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-2)
    found: list[Tensor] = []
    for step in range(200):
        codebook.begin_step(step, seed=0)
        batch = data[torch.randint(len(data), (64,))]
        quantized = codebook(encoder(batch))
        loss = (decoder(quantized.z_q) - batch).square().mean() + quantized.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        codebook.update(step)
        found.append(quantized.metrics["bits"])
    assert found[0] < 2
    assert torch.stack(found[-30:]).mean().item() == pytest.approx(4, abs=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target_bits": 0.0}, "target_bits must be above 0 or null, got 0.0"),
        ({"num_groups": 0}, "num_groups must be at least 1, got 0"),
        ({"num_groups": 3}, "dim must be a multiple of num_groups=3, got 4"),
        ({"target_bits": 8.0, "kl_weight": 0.0}, "kl_weight must be above 0 with target_bits"),
    ],
)
def test_an_impossible_target_is_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        KL(**{"size": None, "dim": 4, "kl_weight": 1.0, **arguments})


@pytest.mark.parametrize(
    ("size", "dim", "weight", "word"),
    [
        (None, 0, 0.0, "dim must be at least 1, got 0"),
        (0, 1, 0.0, "size must be at least 1 or null, got 0"),
        (None, 1, -1.0, "kl_weight must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused(
    size: int | None, dim: int, weight: float, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        KL(size=size, dim=dim, kl_weight=weight)
