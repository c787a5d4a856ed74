"""Sets of sampled images whose distances were worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from vqtrain.generation.samples import measure_samples
from vqtrain.metrics.fid import FID


class Brightness(nn.Module):
    """Takes the first pixel of an image as its feature."""

    def forward(self, images: Tensor) -> Tensor:
        """Return one feature of each image."""
        return images[:, 0, 0, :1].float()


def measured(sampled: Tensor, real: Tensor, batch_size: int = 8) -> dict[str, float]:
    fid = FID()
    fid.network = Brightness()
    device = torch.device("cpu")
    return measure_samples(fid, sampled, real, device=device, batch_size=batch_size)


def pixels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)


def test_distances_as_worked_out_by_hand() -> None:
    # The third neighbors of the real ones are 3, 2, 2, 3 away: they cover [-3, 6]. Those of the
    # sampled ones are 4, 2, 3, 4 away: they cover [1, 13].
    found = measured(pixels(5, 7, 8, 9), pixels(0, 1, 2, 3), batch_size=3)
    assert found["precision"] == 1 / 4
    assert found["recall"] == 3 / 4
    # Means 7.25 and 1.5, variances 8.75 / 3 and 5 / 3.
    root = (8.75 / 3) ** 0.5 - (5 / 3) ** 0.5
    assert found["fid"] == pytest.approx(5.75**2 + root**2, rel=1e-6)


def test_equal_sets_are_at_no_distance() -> None:
    both = pixels(1, 5, 9, 20, 30)
    assert measured(both, both) == pytest.approx(
        {"fid": 0.0, "precision": 1.0, "recall": 1.0}, abs=1e-9
    )


def test_three_images_have_no_third_neighbor() -> None:
    found = measured(pixels(1, 2, 3), pixels(1, 2, 3, 4))
    assert list(found) == ["fid"]
