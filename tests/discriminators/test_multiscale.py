"""The multi-scale discriminator against PatchGANs on images that were made smaller by hand."""

import pytest
import torch
from torch import Tensor

from vqtrain.discriminators.multiscale import MultiScale
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.errors import ConfigError


def multiscale(**changes: object) -> MultiScale:
    arguments = {"in_channels": 3, "channels": 4, "num_layers": 1, "norm": "group", **changes}
    return MultiScale(**{"num_scales": 3, **arguments})  # type: ignore[arg-type]  # plain data


def halved(images: Tensor) -> Tensor:
    """Average 3 x 3 pixels around every second one, of those that there are."""
    rows, columns = images.shape[2:]
    means = [
        [
            images[:, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean((2, 3))
            for j in range(0, columns, 2)
        ]
        for i in range(0, rows, 2)
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in means], dim=-2)


def test_each_scale_is_a_patch_discriminator_of_half_the_image() -> None:
    torch.manual_seed(0)
    network = multiscale().double()
    images = torch.randn(2, 3, 24, 27, dtype=torch.float64)
    found = network(images)
    expected: list[Tensor] = []
    for scale in range(3):
        one = PatchGAN(in_channels=3, channels=4, num_layers=1, norm="group").double()
        prefix = f"scales.{scale}."
        weights = network.state_dict()
        one.load_state_dict(
            {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        )
        expected += one(images)
        images = halved(images)
    assert [each.shape[2:] for each in found] == [(10, 11), (4, 5), (1, 1)]
    torch.testing.assert_close(found, expected)


def test_it_has_the_parameters_of_three_networks() -> None:
    with torch.device("meta"):
        network = multiscale(channels=64, num_layers=3)
    assert sum(p.numel() for p in network.parameters()) == 3 * 2_765_633


def test_batch_norm_needs_two_images() -> None:
    assert [multiscale(norm=n).least_batch_size for n in ("none", "group", "batch")] == [1, 1, 2]


def test_impossible_sizes_are_refused() -> None:
    for name in ("channels", "num_layers", "num_scales"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
            multiscale(**{name: 0})
    with pytest.raises(ConfigError, match="norm must be one of none, group, batch, spectral"):
        multiscale(norm="layer")
