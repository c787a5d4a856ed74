"""The tiled softmax against torch's own, with gradients, over tile borders."""

import pytest
import torch
from torch import Tensor

from vqtrain.codebooks.parts import softmax

N, K, D, C = 13, 50, 4, 3


@pytest.fixture(params=[True, False], ids=["bias", "no-bias"])
def inputs(request: pytest.FixtureRequest) -> list[Tensor | None]:
    z, keys, bias, values = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((N, D), (K, D), (K,), (K, C))
    )
    return [z, keys, bias if request.param else None, values]


@pytest.fixture(params=[2**22, 7 * N], ids=["one-tile", "tiles"], autouse=True)
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "TILE_SCORES", request.param)


def plain_scores(z: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    scores = z @ keys.T
    return scores if bias is None else scores + bias


def compare(ours: list[Tensor], plain: list[Tensor], inputs: list[Tensor | None]) -> None:
    """Compare results, and the gradients of a random combination of them."""
    leaves = [leaf for leaf in inputs if leaf is not None]
    weights = [torch.randn_like(result) for result in plain]
    gradients = [
        torch.autograd.grad(
            sum((w * r).sum() for w, r in zip(weights, results, strict=True)),
            leaves,
            allow_unused=True,
        )
        for results in (ours, plain)
    ]
    for a, b in [*zip(ours, plain, strict=True), *zip(*gradients, strict=True)]:
        assert (a is None) is (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_soft_lookup_is_softmax_times_values(inputs: list[Tensor | None]) -> None:
    z, keys, bias, values = inputs
    assert z is not None
    assert keys is not None
    assert values is not None
    plain = plain_scores(z, keys, bias).softmax(1) @ values
    compare([softmax.soft_lookup(z, keys, bias, values)], [plain], inputs)


def test_noise_is_part_of_the_scores(inputs: list[Tensor | None]) -> None:
    z, keys, bias, values = inputs
    assert z is not None
    assert keys is not None
    assert values is not None
    noise = torch.randn(N, K, dtype=torch.float64)
    ours = softmax.soft_lookup(
        z, keys, bias, values, lambda scores, start, stop: scores.add_(noise[:, start:stop])
    )
    plain = (plain_scores(z, keys, bias) + noise).softmax(1) @ values
    torch.testing.assert_close(ours, plain)


def test_use_is_the_mean_entropy_and_the_mean_distribution(inputs: list[Tensor | None]) -> None:
    z, keys, bias, _ = inputs
    assert z is not None
    assert keys is not None
    probabilities = plain_scores(z, keys, bias).softmax(1)
    plain = [torch.special.entr(probabilities).sum(1).mean(), probabilities.mean(0)]
    compare(list(softmax.soft_use(z, keys, bias)), plain, inputs)


def test_large_scores_do_not_overflow() -> None:
    z, keys = 1e4 * torch.randn(N, D), torch.randn(K, D)
    values = torch.randn(K, C)
    ours = softmax.soft_lookup(z, keys, None, values)
    torch.testing.assert_close(ours, (z @ keys.T).softmax(1) @ values)
    entropy, share = softmax.soft_use(z, keys, None)
    assert 0 <= entropy < 0.1
    assert share.sum() == pytest.approx(1, rel=1e-5)


def test_no_matrix_of_vectors_times_keys_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "TILE_SCORES", 2**20)
    # 64 x 200,000 scores of 8 bytes would be 102 MB.
    z = torch.randn(64, D, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(200_000, D, dtype=torch.float64, requires_grad=True)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            if isinstance(result, Tensor):
                sizes.append(result.untyped_storage().nbytes())
            return result

    with Sizes():
        entropy, share = softmax.soft_use(z, keys, None)
        (entropy + share.square().sum()).backward()
        softmax.soft_lookup(z, keys, None, keys).sum().backward()
    assert max(sizes) <= max(softmax.TILE_SCORES * 8, keys.numel() * 8)
