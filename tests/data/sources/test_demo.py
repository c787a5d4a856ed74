"""The demo's tiles against the photographs they are cut from."""

import io
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.sources import demo
from vqtrain.data.sources.demo import demo_shards
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import scan_tar
from vqtrain.errors import DataError

PHOTOGRAPHS = Path(find_spec("skimage").origin).parent / "data"


def photograph(name: str) -> np.ndarray:
    return np.asarray(Image.open(PHOTOGRAPHS / name).convert("RGB"))


def tiles_of(shards: list[str]) -> dict[str, np.ndarray]:
    index = SampleIndex.concatenate([scan_tar(Path(shard)) for shard in shards])
    assert len({index.key(i) for i in range(len(index))}) == len(index)
    pictures = {index.key(i): Image.open(io.BytesIO(index.read(i))) for i in range(len(index))}
    assert {picture.mode for picture in pictures.values()} == {"RGB"}
    return {key: np.asarray(picture) for key, picture in pictures.items()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pack the whole demo once: training and held-out tiles."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("VQTRAIN_CACHE", str(tmp_path_factory.mktemp("demo")))
        return tiles_of(demo_shards("training")), tiles_of(demo_shards("validation"))


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    """Stand in for scikit-image, with one picture to train on and one to hold out."""
    folder = tmp_path / "skimage" / "data"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    noise[:, :100] = 7
    Image.fromarray(noise).save(folder / "train.png")
    Image.fromarray(noise[:64, :64]).save(folder / "held.png")
    origin = str(tmp_path / "skimage" / "__init__.py")
    monkeypatch.setattr(demo, "find_spec", lambda _: SimpleNamespace(origin=origin))
    monkeypatch.setattr(demo, "TRAINING", ("train.png",))
    monkeypatch.setattr(demo, "HELD_OUT", ("held.png",))
    return folder


def test_held_out_tiles_are_native_pixels(packed):
    _, held_out = packed
    # Row 1 and column 2 of 64 px tiles: from (64, 128).
    expected = photograph("chelsea.png")[64:128, 128:192]
    assert np.array_equal(held_out["chelsea-001-002"], expected)
    expected = photograph("motorcycle_left.png")[384:448, 640:704]
    assert np.array_equal(held_out["motorcycle_left-006-010"], expected)


def test_held_out_tiles_cover_the_pictures_once(packed):
    _, held_out = packed
    # chelsea 451 x 300: 7 x 4 whole tiles; motorcycle_left 741 x 500: 11 x 7.
    names = [key.rsplit("-", 2)[0] for key in held_out]
    assert {name: names.count(name) for name in set(names)} == {
        "chelsea": 28,
        "motorcycle_left": 77,
    }
    assert {tile.shape for tile in held_out.values()} == {(64, 64, 3)}


def test_nothing_held_out_is_trained_on(packed):
    training, _ = packed
    names = {key.split("-")[0] for key in training}
    assert names == {Path(name).stem for name in demo.TRAINING}
    assert not names & {"chelsea", "motorcycle_left", "motorcycle_right"}


def test_training_tiles_are_native_pixels_and_half_size(packed):
    training, _ = packed
    assert {tile.shape for tile in training.values()} == {(96, 96, 3)}
    astronaut = photograph("astronaut.png")
    # Row 1 and column 3 at a stride of 48: from (48, 144).
    assert np.array_equal(training["astronaut-1-001-003"], astronaut[48:144, 144:240])
    # At half size the same place begins at (96, 288) of the native picture.
    blocks = astronaut[96:288, 288:480].astype(float).reshape(96, 2, 96, 2, 3)
    assert np.abs(training["astronaut-2-001-003"] - blocks.mean(axis=(1, 3))).max() <= 0.5


def test_the_training_set_is_large_and_balanced(packed):
    training, _ = packed
    # 512 x 512 px: 9 x 9 native tiles and, at 256 x 256, 4 x 4.
    assert sum(key.startswith("astronaut") for key in training) == 97
    assert len(training) > 1000
    assert sum(key.startswith("retina") for key in training) < len(training) / 4


@pytest.mark.usefixtures("photographs")
def test_flat_tiles_are_left_out():
    # Columns 0 to 99 of 200 are flat. Tiles start at 0, 48 and 96; half size is too small for any.
    assert set(tiles_of(demo_shards("training"))) == {"train-1-000-001", "train-1-000-002"}


@pytest.mark.usefixtures("photographs")
def test_large_pictures_begin_at_half_size(monkeypatch):
    monkeypatch.setattr(demo, "LARGEST_SHORT_SIDE", 99)
    monkeypatch.setattr(demo, "TRAINING_TILE", 24)
    monkeypatch.setattr(demo, "TRAINING_STRIDE", 24)
    reductions = {key.split("-")[1] for key in tiles_of(demo_shards("training"))}
    assert reductions == {"2", "4"}


@pytest.mark.usefixtures("photographs")
def test_packing_again_gives_the_same_bytes(tmp_path, monkeypatch):
    contents = []
    for name in ("one", "other"):
        monkeypatch.setenv("VQTRAIN_CACHE", str(tmp_path / name))
        shards = demo_shards("training") + demo_shards("validation")
        contents.append([Path(shard).read_bytes() for shard in shards])
    assert contents[0] == contents[1]


def test_a_pack_is_used_again_and_leaves_nothing_else(photographs, cache):
    shards = demo_shards("training")
    for picture in photographs.iterdir():
        picture.unlink()
    assert demo_shards("training") == shards
    assert sorted(path.name for path in cache.iterdir()) == ["demo-1", "demo-1.lock"]


def test_a_failed_packing_leaves_no_pack(photographs, cache):
    (photographs / "held.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot pack"):
        demo_shards("validation")
    assert sorted(path.name for path in cache.iterdir()) == ["demo-1.lock"]


def test_missing_photographs_are_named(photographs, monkeypatch):
    (photographs / "held.png").unlink()
    with pytest.raises(DataError, match=r"lacks images of the demo: no held\.png in"):
        demo_shards("training")
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install scikit-image"):
        demo_shards("training")


@pytest.mark.usefixtures("photographs")
def test_a_cache_that_cannot_be_written_is_explained(monkeypatch):
    monkeypatch.setenv("VQTRAIN_CACHE", "/dev/null/nowhere")
    with pytest.raises(DataError, match="set VQTRAIN_CACHE to a folder that can be written"):
        demo_shards("training")
