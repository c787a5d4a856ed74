"""Images of any size as tokens: scaled to a number of tokens, padded, or cut into tiles.

``arrange`` says with a ``Layout`` what it did, and ``restore`` undoes it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError, DataError, require
from vqtrain.ranges import at_least, check_fields
from vqtrain.shapes import by
from vqtrain.tokenizer.checks import check_tile
from vqtrain.tokenizer.model import Tokenizer

# Tiles at once.
TILES = 8


@final
@dataclass(frozen=True, kw_only=True)
class AnySize:
    """How images of any size are encoded; commands take the fields as keys.

    Attributes:
        max_tokens: The most ids of an image, of each codebook: larger images are scaled down to
            it, at their own aspect ratio; None for any number.
        pad: Whether to repeat the last rows and columns until both sides divide into tokens;
            otherwise the border that makes no whole token is cut off.
        tile: Side in px of the tiles in which images are computed; None for no tiles.
        thumbnail: Whether tiles are encoded each by itself, after one of the whole image.
        max_tiles: The most tiles, besides the thumbnail.

    Raises:
        ConfigError: If a value is impossible.
    """

    max_tokens: Annotated[int, at_least(1)] | None = None
    pad: bool = False
    tile: Annotated[int, at_least(1)] | None = None
    thumbnail: bool = False
    max_tiles: Annotated[int, at_least(1)] = 12

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")
        require(
            not self.thumbnail or self.tile is not None,
            "thumbnail=true needs tile=, the side of the tiles in px",
        )
        require(
            not self.thumbnail or (self.max_tokens is None and not self.pad),
            "thumbnail=true resizes to whole tiles: leave out max_tokens and pad",
        )

    @property
    def keeps_whole(self) -> bool:
        """Whether images are neither cropped to one size nor to whole tokens before."""
        return self.max_tokens is not None or self.pad or self.thumbnail

    def check(self, encoder: Encoder) -> None:
        """Refuse tiles that an encoder does not take, and all of it where samples are no images.

        Raises:
            ConfigError: If it does not.
        """
        require(
            len(encoder.downsampling) == 2 or self == AnySize(),
            "max_tokens, pad, tile and thumbnail are for images, and this tokenizer takes none",
        )
        if self.tile is not None:
            check_tile(self.tile, encoder)


@final
@dataclass(frozen=True, kw_only=True)
class Layout:
    """What became of an image; all sizes are height and width, in px.

    Attributes:
        size: Of the image.
        resized: To which it was resized.
        encoded: After padding or cropping; with a thumbnail, of each tile.
        tiles: Rows and columns of tiles that were encoded by themselves; None for one whole.
        has_thumbnail: Whether a tile of the whole image comes first.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    encoded: tuple[int, int]
    tiles: tuple[int, int] | None = None
    has_thumbnail: bool = False

    def to_json(self) -> bytes:
        """Write it as a field of a sample."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Layout":
        """Read what ``to_json`` has written.

        Raises:
            DataError: If it is something else.
        """
        try:
            found = json.loads(content)
            sizes = {name: found[name] for name in ("size", "resized", "encoded", "tiles")}
            pairs = {name: size and (int(size[0]), int(size[1])) for name, size in sizes.items()}
            if any(min(pair) < 1 for name, pair in pairs.items() if pair or name != "tiles"):
                raise ValueError("a side is below 1")
            return cls(**pairs, has_thumbnail=bool(found["has_thumbnail"]))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(f"this is not the layout of an image: {error}") from error


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class AnySizeTokens:
    """The ids of one image, and how to put them back.

    Attributes:
        token_ids: As ``Tokenizer.encode`` gives them for one image, or for each tile.
        layout: What became of the image.
    """

    token_ids: Int64[Tensor, "*tokens"]
    layout: Layout


def layout_of(size: tuple[int, int], tokenizer: Tokenizer, settings: AnySize) -> Layout:
    """Decide what becomes of an image.

    Args:
        size: Its height and width, in px.
        tokenizer: The tokenizer that is to encode it.
        settings: The settings.

    Raises:
        ConfigError: If nothing is left of the image.
    """
    if settings.thumbnail:
        assert settings.tile is not None, "it was checked"
        tile = settings.tile
        rows, columns = tile_grid(size, tile, settings.max_tiles)
        return Layout(
            size=size,
            resized=(rows * tile, columns * tile),
            encoded=(tile, tile),
            tiles=(rows, columns),
            has_thumbnail=rows * columns > 1,
        )
    unit = tokenizer.unit
    resized = _scaled(size, tokenizer, settings)
    encoded = _whole(resized, unit, pad=settings.pad)
    if not all(encoded):
        raise ConfigError(
            f"an image of {by(resized)} px holds no token of {by(unit)} px: pad=true takes it"
        )
    return Layout(size=size, resized=resized, encoded=encoded)


def arrange(images: Float[Tensor, "1 c h w"], layout: Layout) -> Float[Tensor, "n c h2 w2"]:
    """Turn an image into one, or into tiles, whose sides divide into tokens."""
    large = _resize(images, layout.resized)
    if layout.tiles is not None:
        rows, columns = layout.tiles
        tiles = rearrange(large, "1 c (r h) (k w) -> (r k) c h w", r=rows, k=columns)
        first = [_resize(images, layout.encoded)] if layout.has_thumbnail else []
        return torch.cat([*first, tiles])
    spare = [kept - n for n, kept in zip(layout.resized, layout.encoded, strict=True)]
    top, left = (max(0, -n) // 2 for n in spare)
    below, beside = (max(0, n) for n in spare)
    padded = F.pad(large, (0, beside, 0, below), mode="replicate")
    height, width = layout.encoded
    return padded[:, :, top : top + height, left : left + width]


def restore(images: Float[Tensor, "n c h w"], layout: Layout) -> Float[Tensor, "1 c h2 w2"]:
    """Put an image together, without its padding and at its own size.

    An image that was cropped to whole tokens stays cropped.
    """
    if layout.tiles is not None:
        tiles = images[1:] if layout.has_thumbnail else images
        rows, columns = layout.tiles
        whole = rearrange(tiles, "(r k) c h w -> 1 c (r h) (k w)", r=rows, k=columns)
        return _resize(whole, layout.size)
    sides = _kept(layout)
    (_, rows, _), (_, columns, _) = sides
    height, width = (n * kept // whole for n, kept, whole in sides)
    return _resize(images[:, :, :rows, :columns], (height, width))


def cropped(images: Float[Tensor, "1 c h w"], layout: Layout) -> Float[Tensor, "1 c h2 w2"]:
    """Return the part of an image that its ids show, to compare with what they become."""
    rows, columns = (n * kept // whole for n, kept, whole in _kept(layout))
    top, left = (layout.size[0] - rows) // 2, (layout.size[1] - columns) // 2
    return images[:, :, top : top + rows, left : left + columns]


def _kept(layout: Layout) -> list[tuple[int, int, int]]:
    """Return, of each side: of the image, what is kept of the resized one, and that one."""
    kept = layout.resized
    if layout.tiles is None:
        rows, columns = (min(pair) for pair in zip(layout.resized, layout.encoded, strict=True))
        kept = (rows, columns)
    return list(zip(layout.size, kept, layout.resized, strict=True))


@torch.no_grad()
def encode(
    tokenizer: Tokenizer, images: Float[Tensor, "1 c h w"], settings: AnySize
) -> AnySizeTokens:
    """Turn an image of any size, in [-1, 1], into ids.

    Raises:
        ConfigError: If the tokenizer does not take tiles or sizes like these.

    Example:
        ``decode(tokenizer, encode(tokenizer, images, AnySize(pad=True)))`` has the size of
        ``images``.
    """
    settings.check(tokenizer.encoder)
    size = (images.shape[2], images.shape[3])
    layout = layout_of(size, tokenizer, settings)
    arranged = arrange(images, layout)
    if layout.tiles is not None:
        return AnySizeTokens(token_ids=tokenizer.encode(arranged, batch_size=TILES), layout=layout)
    return AnySizeTokens(token_ids=tokenizer.encode(arranged, tile=settings.tile)[0], layout=layout)


@torch.no_grad()
def decode(
    tokenizer: Tokenizer,
    token_ids: Shaped[Tensor, "*tokens"],
    layout: Layout,
    *,
    tile: int | None = None,
) -> Float[Tensor, "1 c h w"]:
    """Turn ids back into an image of its own size.

    Args:
        tokenizer: The tokenizer.
        token_ids: Integers of any width, as ``encode`` gives them.
        layout: The layout.
        tile: As of ``Tokenizer.decode``, for images that are one whole.

    Raises:
        ConfigError: If the ids do not fit the tokenizer.
    """
    if layout.tiles is not None:
        return restore(tokenizer.decode(token_ids, batch_size=TILES), layout)
    return restore(tokenizer.decode(token_ids[None], tile=tile), layout)


def tile_grid(size: tuple[int, int], tile: int, max_tiles: int) -> tuple[int, int]:
    """Choose rows and columns of tiles, by the aspect ratio of an image.

    Only grids that enlarge the area less than twice are tried; of two that are as near, the larger
    one is taken.

    References:
        Chen et al. 2024, arXiv:2404.16821 (InternVL 1.5), dynamic resolution. Deviation: ratios are
        compared by their logarithms, so that upright and wide images are treated alike, and a small
        image is not enlarged for the sake of its ratio.

    Example:
        >>> tile_grid((3072, 4096), 448, 12), tile_grid((448, 448), 448, 12)
        ((3, 4), (1, 1))
    """
    height, width = size
    grids = [(r, c) for r in range(1, max_tiles + 1) for c in range(1, max_tiles // r + 1)]
    fitting = [g for g in grids if math.prod(g) * tile**2 < 2 * height * width] or [(1, 1)]
    distances = {g: abs(math.log(width * g[0] / (height * g[1]))) for g in fitting}
    nearest = min(distances.values())
    return max((g for g in fitting if distances[g] <= nearest + 1e-9), key=math.prod)


def _scaled(size: tuple[int, int], tokenizer: Tokenizer, settings: AnySize) -> tuple[int, int]:
    """Return the largest size at the same aspect ratio that has at most ``max_tokens``."""
    most = settings.max_tokens
    if most is None:
        return size
    unit, codebook = tokenizer.unit, tokenizer.codebook
    # Of the smallest image; larger ones have as many times more as they are larger.
    tokens = math.prod(codebook.tokens((codebook.grid_unit,) * len(unit)))
    longest = max(size)
    for length in range(longest, 0, -1):
        height, width = (max(1, round(n * length / longest)) for n in size)
        grid = _whole((height, width), unit, pad=settings.pad)
        if math.prod(grid) // math.prod(unit) * tokens <= most:
            return height, width
    return 1, 1


def _whole(size: tuple[int, int], unit: Sequence[int], *, pad: bool) -> tuple[int, int]:
    """Round a size to whole tokens, up or down."""
    rows, columns = (-(-n // u) if pad else n // u for n, u in zip(size, unit, strict=True))
    return rows * unit[0], columns * unit[1]


def _resize(images: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Resample by antialiased bicubic."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
