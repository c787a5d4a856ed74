"""The error of changes over time against a loop in plain numbers."""

from itertools import product

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.metrics.temporal_error import TemporalError


def test_it_is_the_mean_absolute_error_of_successive_differences() -> None:
    made, given = torch.randint(0, 256, (2, 2, 3, 4, 2, 3), dtype=torch.uint8)
    found = TemporalError()(made, given).tolist()
    for value, mine, theirs in zip(found, made.tolist(), given.tolist(), strict=True):
        errors = []
        for c, t, h, w in product(range(3), range(3), range(2), range(3)):
            change, expected = (x[c][t + 1][h][w] - x[c][t][h][w] for x in (mine, theirs))
            errors.append(abs(change - expected))
        assert value == pytest.approx(sum(errors) / len(errors), rel=1e-15)


def test_what_has_no_successive_frames_is_refused() -> None:
    image = torch.zeros(1, 3, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="needs clips of at least 2 frames, these have 1"):
        TemporalError()(image, image)
    with pytest.raises(ConfigError, match="temporal_error takes clips, with 3 axes; these have 2"):
        TemporalError()(image[:, :, 0], image[:, :, 0])
