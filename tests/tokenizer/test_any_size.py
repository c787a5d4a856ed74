"""Images of any size: every pixel comes back to its place, and every limit holds."""

import pytest
import torch
import torch.nn.functional as F

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError, DataError
from vqtrain.tokenizer import any_size
from vqtrain.tokenizer.any_size import (
    AnySize,
    Layout,
    arrange,
    cropped,
    layout_of,
    restore,
    tile_grid,
)

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
ENCODER = {"in_channels": 3, "num_downsamplings": 2}
DECODER = {"out_channels": 3, "num_upsamplings": 2}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": NETWORK | ENCODER,
        },
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={
            "kind": "vqvae",
            "arguments": NETWORK | DECODER,
        },
        channels=3,
    ).eval()


def image(height: int, width: int) -> torch.Tensor:
    """Draw a smooth image, which resizing changes little."""
    small = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=True)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47), (1, 3), (5, 200)])
def test_padding_repeats_the_border_and_is_cropped_again(
    tokenizer: Tokenizer, height: int, width: int
) -> None:
    images = image(height, width)
    layout = layout_of((height, width), tokenizer, AnySize(pad=True))
    padded = arrange(images, layout)
    assert padded.shape[2:] == (-(-height // 4) * 4, -(-width // 4) * 4)
    assert torch.equal(padded[:, :, -1, :width], images[:, :, -1])
    assert torch.equal(restore(padded, layout), images)


def test_an_image_of_the_one_size_of_a_codebook_with_scales_stays_as_it_is() -> None:
    inner = {"kind": "fsq", "size": None, "levels": [4, 4], "eps": 1e-3}
    scales = {"size": 16, "scales": [1, 2, 4], "num_convolutions": 2, "inner": inner}
    scales |= {"convolution_share": 0.5, "convolution_weight": 1.0}
    tokenizer = Tokenizer(
        encoder={"kind": "vqvae", "arguments": NETWORK | ENCODER},
        codebook={"kind": "multiscale", "arguments": scales},
        decoder={"kind": "vqvae", "arguments": NETWORK | DECODER},
        channels=3,
    )
    assert layout_of((16, 16), tokenizer, AnySize()) == Layout(
        size=(16, 16), resized=(16, 16), encoded=(16, 16)
    )


def test_without_padding_the_center_is_kept(tokenizer: Tokenizer) -> None:
    images = image(35, 46)
    layout = layout_of((35, 46), tokenizer, AnySize())
    assert torch.equal(arrange(images, layout), images[:, :, 1:33, 1:45])
    assert torch.equal(restore(arrange(images, layout), layout), cropped(images, layout))
    with pytest.raises(ConfigError, match="an image of 3 x 46 px holds no token of 4 x 4 px: pad"):
        layout_of((3, 46), tokenizer, AnySize())


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("size", [(300, 200), (64, 64), (40, 500), (20, 30)])
def test_an_image_is_scaled_to_at_most_so_many_tokens(
    tokenizer: Tokenizer, size: tuple[int, int], pad: bool
) -> None:
    layout = layout_of(size, tokenizer, AnySize(max_tokens=100, pad=pad))
    rows, columns = (n // 4 for n in layout.encoded)
    assert rows * columns <= 100
    assert all(n <= own for n, own in zip(layout.resized, size, strict=True))
    # At its own aspect ratio, up to rounding of the shorter side, and not smaller than it must be.
    scale = max(layout.resized) / max(size)
    assert min(layout.resized) == pytest.approx(min(size) * scale, abs=0.5)
    assert layout.resized == size or (rows + 1) * (columns + 1) > 100
    images = image(*size)
    back = restore(arrange(images, layout), layout)
    assert back.shape == cropped(images, layout).shape
    if pad:
        assert back.shape[2:] == size
        assert (back - images).abs().mean() < 0.05


def test_the_ids_of_all_levels_count() -> None:
    inner = {"kind": "fsq", "size": None, "levels": None, "eps": 1e-3}
    levels = {"size": 16, "channels": 4, "block_channels": 2, "num_blocks": 0, "inner": inner}
    tokenizer = Tokenizer(
        encoder={"kind": "vqvae", "arguments": NETWORK | ENCODER},
        codebook={"kind": "hierarchical", "arguments": levels},
        decoder={"kind": "vqvae", "arguments": NETWORK | DECODER},
        channels=3,
    )
    # 5 ids of 8 x 8 px, 4 of the bottom level and 1 of the top level: 20 x 5 of 100, 4 x 5 x 5.
    layout = layout_of((64, 80), tokenizer, AnySize(max_tokens=100))
    assert layout.encoded == (32, 40)
    assert tokenizer.token_shape(*layout.encoded) == (20, 5)


def test_grids_of_tiles_follow_the_aspect_ratio() -> None:
    assert tile_grid((3072, 4096), 448, 12) == (3, 4)
    assert tile_grid((4096, 3072), 448, 12) == (4, 3)
    assert tile_grid((1000, 1000), 448, 12) == (3, 3)  # 1.8 times the area
    assert tile_grid((900, 900), 448, 12) == (2, 2)  # 3 x 3 would be 2.2 times
    assert tile_grid((300, 300), 448, 12) == tile_grid((300, 400), 448, 12) == (1, 1)
    assert tile_grid((100, 5000), 64, 6) == (1, 6)


def test_tiles_come_row_by_row_after_one_of_the_whole(tokenizer: Tokenizer) -> None:
    images = image(48, 96)
    layout = layout_of((48, 96), tokenizer, AnySize(tile=32, thumbnail=True, max_tiles=8))
    tiles = arrange(images, layout)
    assert (layout.tiles, tiles.shape) == ((2, 4), (9, 3, 32, 32))
    whole = F.interpolate(images, size=(64, 128), mode="bicubic", antialias=True)
    assert torch.equal(tiles[1 + 4 + 2], whole[0, :, 32:, 64:96])
    assert (tiles[0].mean((1, 2)) - images[0].mean((1, 2))).abs().max() < 0.02
    assert (restore(tiles, layout) - images).abs().mean() < 0.02
    one = layout_of((32, 32), tokenizer, AnySize(tile=32, thumbnail=True))
    assert arrange(image(32, 32), one).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "settings",
    [
        AnySize(pad=True),
        AnySize(max_tokens=30),
        AnySize(tile=32, pad=True),
        AnySize(tile=32, thumbnail=True, max_tiles=4),
    ],
)
def test_ids_become_images_of_the_same_size(tokenizer: Tokenizer, settings: AnySize) -> None:
    images = image(70, 45)
    tokens = any_size.encode(tokenizer, images, settings)
    layout = Layout.from_json(tokens.layout.to_json())
    assert layout == tokens.layout
    decoded = any_size.decode(tokenizer, tokens.token_ids, layout, tile=settings.tile)
    assert decoded.shape == cropped(images, layout).shape
    if settings.pad and settings.tile is None:
        padded = F.pad(images, (0, 3, 0, 2), mode="replicate")
        assert torch.equal(tokens.token_ids, tokenizer.encode(padded)[0])
        assert torch.equal(decoded, tokenizer.decode(tokenizer.encode(padded))[:, :, :70, :45])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thumbnail": True}, "thumbnail=true needs tile="),
        ({"thumbnail": True, "tile": 32, "pad": True}, "leave out max_tokens and pad"),
        ({"max_tokens": 0}, "max_tokens must be at least 1 or null, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnySize(**settings)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"size": [0, 3]}', b"\xff"])
def test_a_layout_that_is_damaged_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="this is not the layout of an image"):
        Layout.from_json(content)


@pytest.mark.parametrize("tile", [32, 64])
def test_sequences_of_tokens_have_no_tiles(tile: int) -> None:
    network = {"patch_size": 4, "num_tokens": 8, "dim": 16, "depth": 1, "num_heads": 2}
    network |= {"sample_size": [32, 32], "attention": "self", "positions": "learned"}
    more = {"out_channels": 3, "head": "linear", "nested_dropout": "none"}
    tokenizer = Tokenizer(
        encoder={
            "kind": "latent_query",
            "arguments": {**network, "in_channels": 3, "transpose": True},
        },
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={"kind": "latent_query", "arguments": {**network, **more}},
        channels=3,
    ).eval()
    reason = "makes sequences of 8" if tile == 32 else "takes samples of 32 x 32, got 64 x 64"
    with pytest.raises(ConfigError, match=rf"tile={tile} .*{reason}"):
        any_size.encode(tokenizer, image(32, 32), AnySize(tile=tile))
    with pytest.raises(ConfigError, match=reason):
        tokenizer.decode(torch.zeros(1, 8, dtype=torch.int64), tile=tile)
