"""The relaxed codebook: its schedule and its mixture by hand."""

import math

import pytest
import torch

from vqtrain.codebooks.gumbel import Gumbel
from vqtrain.codebooks.parts import softmax
from vqtrain.codebooks.residual import Residual
from vqtrain.errors import ConfigError


def make(**changes: object) -> Gumbel:
    arguments: dict[str, object] = {
        "size": 3,
        "dim": 2,
        "kl_weight": 1.0,
        "temperature": 1.0,
        "final_temperature": 0.2,
        "temperature_steps": 4,
    }
    return Gumbel(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data


def test_the_temperature_falls_along_a_cosine_and_stays() -> None:
    codebook = make()
    used = [codebook.update(step)["temperature"].item() for step in range(6)]
    # 0.2 + 0.8 (1 + cos(pi t)) / 2 at t = 0, 1/4, 1/2, 3/4, 1, 1.
    shares = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0, 0.0]
    assert used == pytest.approx([0.2 + 0.8 * share for share in shares])


def test_the_temperature_is_stored_so_that_a_resumed_run_goes_on_with_it() -> None:
    codebook, other = make(), make()
    codebook.update(0)
    other.load_state_dict(codebook.state_dict())
    assert other.temperature == codebook.temperature
    assert other.temperature < 1


def test_at_a_high_temperature_the_mixture_is_the_mean_and_at_a_low_one_a_code() -> None:
    z = torch.randn(1, 2, 50)
    hot = make(temperature=1e6, temperature_steps=10)
    torch.testing.assert_close(
        hot(z).z_q, hot.vectors.mean(0)[None, :, None].expand(1, 2, 50), rtol=1e-3, atol=1e-3
    )
    cold = make(temperature=1e-4, temperature_steps=10)
    distances = torch.cdist(cold(z).z_q[0].T, cold.vectors)
    assert (distances.amin(1) < 1e-3).double().mean() > 0.95


def test_the_divergence_from_uniform_by_hand() -> None:
    codebook = make()
    with torch.no_grad():
        codebook.scores.weight.zero_()
        codebook.scores.bias.copy_(torch.tensor([0.5, 0.25, 0.25]).log())
    # ln 3 minus the entropy 1.5 ln 2.
    expected = math.log(3) - 1.5 * math.log(2)
    torch.testing.assert_close(codebook(torch.randn(1, 2, 5)).loss, torch.tensor(expected))
    assert codebook.eval()(torch.randn(1, 2, 5)).loss == 0


def test_in_eval_mode_the_largest_score_wins_without_noise() -> None:
    codebook = make().eval()
    z = torch.randn(1, 2, 20)
    scores = codebook.scores(z[0].T)
    assert torch.equal(codebook(z).token_ids[0, 0], scores.argmax(1))


def test_latents_may_be_wider_than_codes() -> None:
    codebook = make(latent_dim=5).eval()
    z = torch.randn(1, codebook.in_channels, 20)
    quantized = codebook(z)
    ids = (codebook.scores.weight @ z[0] + codebook.scores.bias[:, None]).argmax(0)
    assert torch.equal(quantized.z_q[0].T, codebook.vectors[ids])
    assert quantized.metrics == {}  # a distance would be of vectors that cannot be compared
    gumbel = {"kind": "gumbel", "size": None, "dim": 2, "kl_weight": 0.0, "latent_dim": 5}
    gumbel |= {"temperature": 1.0, "final_temperature": 1.0, "temperature_steps": 1}
    with pytest.raises(ConfigError, match="gumbel takes latents of 5 channels and gives codes of"):
        Residual(size=3, num_codebooks=2, shared=False, shrink=1.0, inner=gumbel)


def test_the_noise_of_many_codes_does_not_depend_on_the_size_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(softmax, "TILE_SCORES", 100)  # of 40 vectors 2 codes, of 10 vectors 10
    codebook = make(size=30)
    z = torch.randn(4, 2, 10)
    joined = codebook(z).z_q
    codebook.discard_step()
    split = torch.cat([codebook(image[None]).z_q for image in z])
    torch.testing.assert_close(split, joined)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"temperature": 0.0}, "^temperature must be above 0, got 0"),
        ({"final_temperature": -1.0}, "final_temperature must be above 0, got -1"),
        ({"temperature_steps": -1}, "temperature_steps must be at least 0"),
        ({"kl_weight": -1.0}, "kl_weight must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
