"""Folders of frames as samples, in the order of their numbers."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.decoding.clips import ClipTransform
from vqtrain.data.media import VIDEO
from vqtrain.data.sources.fields import find_fields
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import BadSampleError, DataError


@pytest.fixture
def folder(tmp_path: Path, encode_video) -> Path:
    for clip in ("b/one", "b/two.v2"):
        (tmp_path / clip).mkdir(parents=True)
        for number in range(11):
            level = 10 * number + 100 * (clip == "b/two.v2")
            Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / clip / f"f{number}.png")
        (tmp_path / clip / ".DS_Store").write_bytes(b"x")
    (tmp_path / "b/one.txt").write_text("eleven levels of gray")
    # Neither clips nor frames of one: other files beside them, or folders.
    for mixed in ("c", "d"):
        (tmp_path / mixed).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / mixed / "0.png")
    (tmp_path / "c/labels.json").write_text("{}")
    (tmp_path / "d/e").mkdir()
    (tmp_path / "d/a.mp4").write_bytes(encode_video([10, 20]))
    return tmp_path


def test_folders_of_frames_are_clips_beside_files(folder: Path) -> None:
    index = open_samples(str(folder), VIDEO, role="training")
    keys = [index.key(number) for number in range(len(index))]
    assert keys == ["b/one", "b/two.v2", "d/a"]
    assert index.others == {".png": 2, ".json": 1}
    # One of them is named, and a glob finds each once.
    assert open_samples(str(folder / "b/one"), VIDEO, role="training").key(0) == "one"
    assert len(open_samples(f"{folder}/b/*", VIDEO, role="training")) == 2

    transform = ClipTransform(
        image_size=8,
        channels=1,
        crop="resize",
        flip=False,
        range=None,
        background="white",
        frames=3,
        fps=None,
        stride=5,
    )
    assert transform.decode(index.read(0), None)[0, :, 0, 0].tolist() == [0, 50, 100]
    assert transform.decode(index.read(1), None)[0, :, 0, 0].tolist() == [100, 150, 200]
    with tarfile.open(fileobj=io.BytesIO(index.read(0))) as tar:
        assert tar.getnames() == [f"f{number}.png" for number in range(11)]

    fields = find_fields(index)
    assert np.diff(fields.first).tolist() == [1, 0, 0]
    assert fields.index.read(0) == b"eleven levels of gray"


def test_frames_that_change_or_are_missing_are_said(folder: Path) -> None:
    index = open_samples(str(folder), VIDEO, role="training")
    (folder / "b/one/f3.png").unlink()
    with pytest.raises(BadSampleError, match="has changed since it was indexed"):
        index.read(0)
    with pytest.raises(DataError, match=r"holds no clips: looked for .* and folders of frames$"):
        open_samples(str(folder / "c"), VIDEO, role="training")
