"""Moments and the Frechet distance against torch-fidelity and numpy, on random features."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)

from vqtrain.metrics.parts.moments import Moments, frechet_distance

CPU = torch.device("cpu")


def moments_of(features: Tensor) -> Moments:
    moments = Moments(dim=features.shape[1], device=CPU)
    for batch in features.split(7):
        moments.add(batch, torch.ones(len(batch), dtype=torch.bool))
    return moments


def reference(first: Tensor, second: Tensor) -> float:
    """The distance by torch-fidelity, which keeps the precision of features."""
    statistics = [fid_features_to_statistics(features.double()) for features in (first, second)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def features_like_those_of_inception(count: int, dim: int) -> Tensor:
    """Not negative, with means that are large beside their correlated deviations."""
    mixed = torch.randn(count, dim) @ torch.randn(dim, dim) / dim**0.5
    return (0.5 + 0.3 * mixed).relu()


@pytest.mark.parametrize(("count", "dim"), [(200, 16), (10, 16), (2, 4)])
def test_distance_is_that_of_torch_fidelity(count: int, dim: int) -> None:
    first = features_like_those_of_inception(count, dim)
    second = features_like_those_of_inception(count + 3, dim) * 1.2
    found = frechet_distance(moments_of(first), moments_of(second))
    assert found > 0.01
    assert found == pytest.approx(reference(first, second), rel=1e-6)


def test_distance_of_two_known_distributions() -> None:
    # Means 1 and 4; variances 2 (of 0, 2) and 8 (of 2, 6): (4-1)^2 + 2 + 8 - 2 sqrt(2 * 8) = 11.
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [6.0]])
    assert frechet_distance(moments_of(first), moments_of(second)) == pytest.approx(11.0)


@pytest.mark.parametrize("count", [40, 2000])
def test_a_set_is_at_distance_0_from_itself(count: int) -> None:
    features = features_like_those_of_inception(count, 256)
    distance = frechet_distance(moments_of(features), moments_of(features.flip(0)))
    assert 0 <= distance < 1e-3


def test_moments_are_those_of_numpy() -> None:
    features = features_like_those_of_inception(50, 8)
    moments = moments_of(features)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, features.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        moments.covariance, np.cov(features.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12
    )


def test_masked_features_are_ignored_even_if_they_are_not_numbers() -> None:
    features = torch.tensor([[1.0, 2.0], [math.nan, math.inf], [3.0, 5.0]])
    moments = Moments(dim=2, device=CPU)
    moments.add(features, torch.tensor([True, False, True]))
    # The matrix of [1, f] [1, f]^T over [1, 1, 2] and [1, 3, 5].
    assert moments.sums.tolist() == [[2, 4, 7], [4, 10, 17], [7, 17, 29]]


def test_features_that_are_no_numbers_are_not_hidden() -> None:
    features = torch.tensor([[1.0], [math.nan], [2.0]])
    assert math.isnan(frechet_distance(moments_of(features), moments_of(torch.rand(3, 1))))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_distance(count: int) -> None:
    few, many = moments_of(torch.rand(count, 4)), moments_of(torch.rand(9, 4))
    assert math.isnan(frechet_distance(few, many))
    assert math.isnan(frechet_distance(many, few))
