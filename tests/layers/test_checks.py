"""The checks of sizes."""

import pytest

from vqtrain.errors import ConfigError
from vqtrain.layers.checks import check_at_least


def test_the_smallest_allowed_value_passes() -> None:
    assert check_at_least(2, channels=2, blocks=3) is None


def test_a_smaller_value_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="blocks must be at least 2, got 1"):
        check_at_least(2, channels=2, blocks=1)
