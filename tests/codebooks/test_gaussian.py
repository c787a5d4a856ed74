"""Gaussian Quant against its formula in float64, and as what takes the place of a trained kl."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vqtrain import Tokenizer
from vqtrain.codebooks.gaussian import Gaussian
from vqtrain.codebooks.parts.points import normal_points
from vqtrain.errors import ConfigError


def test_the_choice_by_hand() -> None:
    codebook = Gaussian(size=3, dim=1, num_codebooks=1).double()
    codebook.points.vectors.copy_(torch.tensor([[-1.0], [0.5], [2.0]]))
    # log N(c; m, v) - log N(c; 0, 1) = -(c - m)^2 / 2v + c^2 / 2 - log(v) / 2. For m = 1, v = 1/4:
    # -8 + 0.5, -0.5 + 0.125, -2 + 2, plus ln 2 each. So 2 wins, though 0.5 is nearer to the mean.
    # For v = 1/16: -32 + 0.5, -2 + 0.125, -8 + 2: now 0.5 wins.
    z = torch.tensor([[[1.0, 1.0], [math.log(1 / 4), math.log(1 / 16)]]], dtype=torch.float64)
    quantized = codebook(z)
    assert quantized.token_ids.tolist() == [[[2, 1]]]
    assert quantized.z_q.tolist() == [[[2.0, 0.5]]]
    assert quantized.loss == 0
    # 1/2 (m^2 + v - 1 - ln v) nats: (1/4 + 2 ln 2) / 2 and (1/16 + 4 ln 2) / 2; a mean in bits.
    expected = ((1 / 4 + 2 * math.log(2)) / 2 + (1 / 16 + 4 * math.log(2)) / 2) / 2 / math.log(2)
    assert quantized.metrics["bits"].item() == pytest.approx(expected, abs=1e-12)


def plain(z: Tensor, points: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The formula with densities of torch, one group after the other."""
    mean, log_variance = z.chunk(2, dim=1)
    ids, z_q = [], torch.empty_like(mean)
    prior = Normal(torch.zeros_like(points), 1.0).log_prob(points).sum(1)
    for j in range(n):
        m, s = (t[:, j::n].movedim(1, -1)[..., None, :] for t in (mean, (log_variance / 2).exp()))
        best = (Normal(m, s).log_prob(points).sum(-1) - prior).argmax(-1)
        ids.append(best)
        z_q[:, j::n] = points[best].movedim(-1, 1)
    return torch.stack(ids, 1), z_q


@pytest.mark.parametrize("n", [1, 2, 3])
def test_it_equals_a_plain_loop_beyond_one_tile(n: int) -> None:
    codebook = Gaussian(size=2500, dim=6, num_codebooks=n).double()
    z = torch.cat([torch.randn(2, 6, 5, 4), torch.randn(2, 6, 5, 4) - 3], 1).double()
    quantized = codebook(z)
    ids, z_q = plain(z, codebook.points.vectors, n)
    assert torch.equal(quantized.token_ids, ids)
    assert torch.equal(quantized.z_q, z_q)
    assert len(ids.unique()) > 30
    # In float32 another point may win where both are as good.
    narrow = Gaussian(size=2500, dim=6, num_codebooks=n)(z.float())
    assert (narrow.token_ids == ids).float().mean() > 0.98


def test_points_are_those_of_the_normal_distribution_and_repeat() -> None:
    points = normal_points(4096, 4)
    assert torch.equal(points, normal_points(4096, 4))
    assert torch.equal(points[:64], normal_points(64, 4))
    torch.testing.assert_close(points.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(points.T.cov(), torch.eye(4), atol=0.01, rtol=0)
    # As many in each of 16 equally likely intervals, of every channel: a Sobol sequence.
    cells = (torch.special.ndtr(points.double()) * 16).long()
    assert all((cells[:, channel].bincount() == 256).all() for channel in range(4))


def test_the_points_are_stored() -> None:
    codebook = Gaussian(size=8, dim=4, num_codebooks=2)
    assert {k: v.shape for k, v in codebook.state_dict().items()} == {"points.vectors": (8, 2)}
    assert not list(codebook.parameters())
    assert codebook.id_order.endswith("id j of 2, from 0, is of the channels j, j + 2, j + 4...")


def test_a_gradient_is_that_of_the_sample_which_the_point_is() -> None:
    codebook = Gaussian(size=8, dim=2, num_codebooks=1)
    z = torch.randn(1, 4, 3, requires_grad=True)
    z_q = codebook(z).z_q
    mean, log_variance = z.detach().requires_grad_().chunk(2, dim=1)
    noise = ((z_q - mean) / (log_variance / 2).exp()).detach()
    expected = torch.autograd.grad(
        (mean + (log_variance / 2).exp() * noise).sin().sum(), (mean, log_variance)
    )
    z_q.sin().sum().backward()
    torch.testing.assert_close(z.grad, torch.cat(expected, 1))


def tokenizer(kind: str, **arguments: object) -> Tokenizer:
    shared = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    encoder = {**shared, "in_channels": 3, "num_downsamplings": 2}
    return Tokenizer(
        encoder={"kind": "vqvae", "arguments": encoder},
        codebook={"kind": kind, "arguments": arguments},
        decoder={
            "kind": "vqvae",
            "arguments": {**shared, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
    ).eval()


def test_it_takes_the_place_of_kl_with_the_other_weights_as_they_are() -> None:
    kl = tokenizer("kl", size=None, dim=4, kl_weight=1.0)
    gaussian = tokenizer("gaussian", size=256, dim=4, num_codebooks=2)
    gaussian.load_weights({**gaussian.state_dict(), **kl.state_dict()})
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    assert torch.equal(gaussian.latents(images), kl.latents(images))
    ids = gaussian.encode(images)
    assert ids.shape == (2, 2, 4, 6)
    assert gaussian.codebook_vectors.shape == (256, 2)
    z_q = gaussian.quantize(kl.latents(images)).z_q
    assert torch.equal(gaussian.decode(ids), kl.decode_latents(z_q).clamp(-1, 1))


@pytest.mark.parametrize(("more_bits", "low", "high"), [(0, 0.5, 2.5), (4, 0, 1), (-4, 4, 16)])
def test_points_come_near_the_mean_where_their_bits_are_those_of_the_divergence(
    more_bits: int, low: float, high: float
) -> None:
    dim, bits = 4, 8
    log_variance = torch.full((1, dim, 2000), -2 * math.log(2) * bits / dim)
    # With means of such a variance, samples are standard normal, of that divergence on average.
    mean = torch.randn(1, dim, 2000) * (1 - log_variance.exp()).sqrt()
    codebook = Gaussian(size=2 ** (bits + more_bits), dim=dim, num_codebooks=1)
    quantized = codebook(torch.cat([mean, log_variance], 1))
    assert quantized.metrics["bits"].item() == pytest.approx(bits, abs=0.3)
    # In units of the variance, which a sample's error is.
    error = ((quantized.z_q - mean).square() / log_variance.exp()).mean()
    assert low < error < high


@pytest.mark.parametrize(
    ("size", "dim", "n", "words"),
    [
        (0, 4, 1, "size must be at least 1, got 0"),
        (16, 0, 1, "dim must be at least 1, got 0"),
        (16, 4, 0, "num_codebooks must be at least 1, got 0"),
        (16, 4, 3, "dim must be a multiple of num_codebooks=3, got 4"),
    ],
)
def test_impossible_arguments_are_refused(size: int, dim: int, n: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Gaussian(size=size, dim=dim, num_codebooks=n)
