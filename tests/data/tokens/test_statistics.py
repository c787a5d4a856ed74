"""Statistics of latents against those of all latents at once."""

import numpy as np
import pytest

from vqtrain.data.tokens.statistics import limit_of, statistics_of, sums_of


def test_sums_of_batches_give_the_statistics_of_all_values() -> None:
    generator = np.random.default_rng(0)
    latents = generator.normal([1.0, -3.0, 0.0], [0.5, 2.0, 1.0], (7, 4, 5, 3)).astype(np.float16)
    found = statistics_of([sums_of(latents[:4]), sums_of(latents[4:]), sums_of(latents[:0])])
    wide = latents.astype(np.float64)
    np.testing.assert_allclose(found["mean"], wide.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(found["std"], wide.std((0, 1, 2)), atol=1e-12)
    assert (found["min"], found["max"]) == (wide.min(), wide.max())


@pytest.mark.parametrize(
    ("low", "high", "limit"),
    [(-0.0431, 0.01, 0.044), (-1.0, 0.2, 1.0), (0.0, 0.0, 1.0), (-2.0, 99.5, 100.0)],
)
def test_the_limit_is_round_and_not_exceeded(low: float, high: float, limit: float) -> None:
    found = limit_of({"mean": [0.0], "std": [1.0], "min": low, "max": high})
    assert found == limit >= max(-low, high)
