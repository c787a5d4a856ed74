"""The balancer of gradients against its formula and values worked out by hand."""

import pytest
import torch
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.losses.parts.balancer import Balancer, BalancerSettings


def balancer(decay: float = 0.5) -> Balancer:
    return Balancer(["a", "b", "c"], decay=decay, norm=2.0).double()


def with_norm(*norms: float) -> Tensor:
    """Gradients of a mean over samples whose own gradients have these norms."""
    rows = torch.randn(len(norms), 1, 7, dtype=torch.float64)
    own = rows / rows.norm(dim=2, keepdim=True) * torch.tensor(norms)[:, None, None]
    return own / len(norms)


def values(factors: dict[str, Tensor]) -> dict[str, float]:
    return {name: factor.item() for name, factor in factors.items()}


def test_factors_are_shares_over_running_means_of_norms() -> None:
    own, weights = balancer(), {"a": 3.0, "b": 1.0}
    assert values(own.factors(weights)) == {"a": 0.0, "b": 0.0}  # nothing is measured
    own.observe("a", with_norm(2.0, 6.0))
    own.update()
    # a alone is known, with a mean of 4: 2 * (3 / 3) / 4; with b measured as 10 besides, its share
    # is 3 of 4, and its mean (0.5 * 4 + 1) / 1.5 = 2.
    assert values(own.factors(weights)) == pytest.approx({"a": 0.5, "b": 0.0})
    own.observe("a", with_norm(1.0))
    own.observe("b", with_norm(10.0))
    own.update()
    assert values(own.factors(weights)) == pytest.approx({"a": 0.75, "b": 0.05})
    own.update()  # without a batch
    own.observe("a", with_norm(1e9))
    own.discard_step()
    own.update()
    assert values(own.factors({"a": 1.0})) == pytest.approx({"a": 1.0})  # of the terms of a step


def test_a_step_of_several_batches_is_that_of_the_joined_one() -> None:
    norms = (3.0, 5.0, 1.0, 8.0)
    joined, split = balancer(), balancer()
    joined.observe("a", with_norm(*norms))
    for each in (norms[:2], norms[2:]):
        split.observe("a", with_norm(*each))
    for own in (joined, split):
        own.update()
    assert values(joined.factors({"a": 1.0})) == pytest.approx(values(split.factors({"a": 1.0})))


def test_losses_are_differentiated_one_by_one_and_added_by_factors() -> None:
    own = balancer()
    point = torch.randn(3, 1, 5, dtype=torch.float64, requires_grad=True)
    other = torch.randn(3, 1, 5, dtype=torch.float64, requires_grad=True)
    losses = {"a": point.square().mean(), "b": (point * other).mean()}
    found = own.balanced(losses, {"a": 2.0, "b": 0.5}, [point, other], 4096.0)
    expected = [2 * 2 * point / 15 + 0.5 * other / 15, 0.5 * point / 15]
    torch.testing.assert_close(found, [each.detach() for each in expected])
    own.update()
    norms = [(2 * point / 5).norm(dim=2), (other / 5).norm(dim=2)]  # of each sample's own loss
    factors = values(own.factors({"a": 1.0, "b": 1.0}))
    assert factors == pytest.approx(
        {n: 1 / m.mean().item() for n, m in zip("ab", norms, strict=True)}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": 1.0}, r"loss.balancer.decay must be in \[0, 1\), got 1.0"),
        ({"norm": 0.0}, "loss.balancer.norm must be above 0 and finite, got 0.0"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BalancerSettings(**{"enabled": True, "decay": 0.9, "norm": 1.0, **changes})
