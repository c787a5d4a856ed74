"""The photographs inside the scikit-image wheel, cut into tiles: a data set without a download."""

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from filelock import FileLock
from PIL import Image

from vqtrain.data.cache import cache_folder
from vqtrain.data.media import IMAGE, Media
from vqtrain.errors import DataError

Role = Literal["training", "validation"]

# Increase it whenever the tiles change, so that an old pack is not used.
_RECIPE = 1

# Never used for training; nor is motorcycle_right.png, which shows the same as motorcycle_left.png.
HELD_OUT = ("chelsea.png", "motorcycle_left.png")
# Left out: drawings and diagrams, a phase map (cell) and a blur without edges (clock_motion).
TRAINING = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
# In px. A training tile has 33 x 33 positions for a 64 px crop.
HELD_OUT_TILE = 64
TRAINING_TILE = 96
TRAINING_STRIDE = 48
# Images above this short side are halved first: their finest scale has little detail and would
# make up half of all tiles.
LARGEST_SHORT_SIDE = 800
# Tiles with a smaller standard deviation, in gray levels, are skipped as flat.
LEAST_CONTRAST = 4.0


def demo_shards(role: Role, media: Media = IMAGE) -> list[str]:
    """Find the tars of the demo's samples; the first call makes them in a few seconds.

    Args:
        role: ``training`` for overlapping tiles of 14 photographs at two scales, ``validation`` for
            the 105 tiles of two others, in native pixels. Clips and sounds are made in code.
        media: What the samples are of.

    Raises:
        DataError: If scikit-image's photographs are missing or the cache folder cannot be written.
    """
    name, recipe, write = _demo_of(media)
    pack = cache_folder() / f"{name}-{recipe}"
    if not pack.is_dir():
        try:
            pack.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(pack.with_suffix(".lock")):
                if not pack.is_dir():
                    _pack_demo(pack, write)
        except (OSError, NotImplementedError) as error:
            raise DataError(
                f"cannot pack the demo's {media.noun}s in {pack}: {error}; "
                "set VQTRAIN_CACHE to a folder that can be written"
            ) from error
    return [str(pack / f"{role}.tar")]


def _demo_of(media: Media) -> tuple[str, int, Callable[[Path], None]]:
    """Return the name of the demo, the number of its recipe, and what writes its tars."""
    if media is IMAGE:
        return "demo", _RECIPE, _write_images
    module = import_module(f"vqtrain.data.sources.demo_{media.noun}s")
    return f"demo-{media.noun}s", module.RECIPE, module.write


def _pack_demo(pack: Path, write: Callable[[Path], None]) -> None:
    with TemporaryDirectory(dir=pack.parent, prefix=f"{pack.name}.") as partial:
        folder = Path(partial) / pack.name
        folder.mkdir()
        write(folder)
        folder.replace(pack)


def _write_images(folder: Path) -> None:
    pictures = photographs()
    write_tar(folder / "training.tar", map(_encoded, _training_tiles(pictures)))
    write_tar(folder / "validation.tar", map(_encoded, _held_out_tiles(pictures)))


def photographs() -> Path:
    """Find the folder of scikit-image's photographs.

    Raises:
        DataError: If it, or one that the demo needs, is missing.
    """
    spec = find_spec("skimage")  # importing it would take a second
    if spec is None or spec.origin is None:
        raise DataError("the demo's images come with scikit-image: pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    missing = [name for name in (*TRAINING, *HELD_OUT) if not (folder / name).is_file()]
    if missing:
        raise DataError(f"this scikit-image lacks images of the demo: no {missing[0]} in {folder}")
    return folder


def _held_out_tiles(photographs: Path) -> Iterator[tuple[str, Image.Image]]:
    for name in HELD_OUT:
        with Image.open(photographs / name) as image:
            tiles = _tiles(image.convert("RGB"), size=HELD_OUT_TILE, stride=HELD_OUT_TILE)
        for place, tile in tiles:
            yield f"{Path(name).stem}-{place}", tile


def _training_tiles(photographs: Path) -> Iterator[tuple[str, Image.Image]]:
    for name in TRAINING:
        with Image.open(photographs / name) as image:
            first = 1 if min(image.size) <= LARGEST_SHORT_SIDE else 2
            native = image.convert("RGB")
        for reduction in (first, 2 * first):
            scaled = native.reduce(reduction)
            for place, tile in _tiles(scaled, size=TRAINING_TILE, stride=TRAINING_STRIDE):
                if np.asarray(tile).std(axis=(0, 1)).max() >= LEAST_CONTRAST:
                    yield f"{Path(name).stem}-{reduction}-{place}", tile


def _tiles(image: Image.Image, *, size: int, stride: int) -> Sequence[tuple[str, Image.Image]]:
    """Cut whole tiles, named by row and column."""
    return [
        (
            f"{top // stride:03d}-{left // stride:03d}",
            image.crop((left, top, left + size, top + size)),
        )
        for top in range(0, image.height - size + 1, stride)
        for left in range(0, image.width - size + 1, stride)
    ]


def _encoded(tile: tuple[str, Image.Image]) -> tuple[str, bytes]:
    encoded = io.BytesIO()
    tile[1].save(encoded, "PNG", compress_level=1)
    return f"{tile[0]}.png", encoded.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar of files, by their names; equal files give equal bytes."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)  # its time and owner are 0
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
