"""The two levels of VQ-VAE-2: sizes, the order of ids, and the way through, written out."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.codebooks.hierarchical import Hierarchical
from vqtrain.errors import ConfigError

EMA = {
    "kind": "ema",
    "size": None,
    "dim": 3,
    "decay": 0.9,
    "commitment_weight": 0.25,
    "l2_normalize": False,
    "gradient": "straight_through",
    "kmeans_iterations": 0,
    "restart_below": 0.0,
    "sampling_temperature": 0.0,
}


def make(**changes: Any) -> Hierarchical:
    sizes = {"size": 7, "channels": 4, "block_channels": 2, "num_blocks": 1, "inner": EMA}
    return Hierarchical(**{**sizes, **changes})


def test_published_sizes() -> None:
    with torch.device("meta"):
        module = make(
            size=512, channels=128, block_channels=32, num_blocks=2, inner={**EMA, "dim": 64}
        )
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in module.named_children()
    }
    assert counts == {
        "top": 0,
        "bottom": 0,
        "encoder_top": 287_232,
        "to_top": 8_256,
        "decoder_top": 287_232,
        "to_bottom": 12_352,
        "upsample_top": 65_600,
    }
    assert (module.in_channels, module.dim, module.size) == (128, 128, 512)


def walk(w: dict[str, Tensor], z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The codebook of ``make()``, layer by layer: ids of both levels, loss and z_q."""

    def conv(name: str, h: Tensor, **options: int) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def up(name: str, h: Tensor) -> Tensor:
        weights = w[f"{name}.weight"], w[f"{name}.bias"]
        return F.conv_transpose2d(h, *weights, stride=2, padding=1)

    def block(name: str, h: Tensor) -> Tensor:
        inside = conv(f"{name}.conv1", F.relu(h), padding=1)
        return h + conv(f"{name}.conv2", F.relu(inside))

    def nearest(level: str, h: Tensor) -> tuple[Tensor, Tensor]:
        flat, table = h.movedim(1, -1), w[f"{level}.vectors"]
        ids = (flat[..., None, :] - table).square().sum(-1).argmin(-1)
        return ids, table[ids].movedim(-1, 1)

    h = F.relu(conv("encoder_top.0", z, stride=2, padding=1))
    h = F.relu(block("encoder_top.3", conv("encoder_top.2", h, padding=1)))
    z_top = conv("to_top", h)
    top, top_q = nearest("top", z_top)
    h = block("decoder_top.1", conv("decoder_top.0", top_q, padding=1))
    decoded = up("decoder_top.3", F.relu(h))
    z_bottom = conv("to_bottom", torch.cat([decoded, z], dim=1))
    bottom, bottom_q = nearest("bottom", z_bottom)
    loss = 0.25 * (F.mse_loss(z_top, top_q) + F.mse_loss(z_bottom, bottom_q))
    return top, bottom, loss, torch.cat([up("upsample_top", top_q), bottom_q], dim=1)


@torch.no_grad()
def test_both_levels_written_out() -> None:
    torch.manual_seed(0)
    codebook = make().double()
    z = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    codebook.initialize(z)
    quantized = codebook.eval()(z)
    top, bottom, loss, z_q = walk(codebook.state_dict(), z)
    assert (top.shape, bottom.shape) == ((2, 2, 3), (2, 4, 6))
    assert min(len(top.unique()), len(bottom.unique())) > 3
    torch.testing.assert_close(quantized.z_q, z_q)
    torch.testing.assert_close(quantized.loss, loss)
    # The ids of the top level, then those of the bottom level, each row by row.
    flat = torch.cat([top.flatten(1), bottom.flatten(1)], dim=1)
    assert quantized.token_ids.shape == (2, 1, *codebook.tokens((4, 6))) == (2, 1, 10, 3)
    assert torch.equal(quantized.token_ids.flatten(1), flat)
    grids = codebook.id_grids(quantized.token_ids[1])
    assert [grid.tolist() for grid in grids] == [top[1].tolist(), bottom[1].tolist()]


@torch.no_grad()
def test_each_level_starts_from_its_own_latents() -> None:
    torch.manual_seed(0)
    codebook = make(size=24).double()
    z = torch.randn(1, 4, 4, 6, dtype=torch.float64)
    codebook.initialize(z)
    assert codebook.training
    # As many codes as latents of the bottom level: each is one.
    assert codebook.bottom(codebook.joined(codebook.top(z_top(codebook, z)).z_q, z)).loss == 0
    assert codebook.top(z_top(codebook, z)).loss == 0


def z_top(codebook: Hierarchical, z: Tensor) -> Tensor:
    return codebook.to_top(codebook.encoder_top(z))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((5, 8), "2-D grids of latents with even sides, got 5 x 8, the nearest: 4 x 8 and 6 x 8"),
        ((1, 1), "got 1 x 1, the nearest: 2 x 2$"),
        ((4,), "2-D grids of latents with even sides, got 4$"),
    ],
)
def test_a_grid_without_halves_is_refused(grid: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().tokens(grid)


def test_ids_of_another_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match="the ids of both levels have 5 n rows, got 4 x 4"):
        make().decode(torch.zeros(1, 1, 4, 4, dtype=torch.int64))


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="channels must be at least 2, got 1"):
        make(channels=1)
