"""Packs of clips: kept as they are, or as small mp4 with frequent key frames."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.decoding.clips import ClipTransform, open_frames
from vqtrain.data.decoding.videos import Video
from vqtrain.data.media import VIDEO
from vqtrain.data.packing.clips import ClipPack
from vqtrain.data.packing.pack import pack
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import ConfigError

TIMES = [0, 300, 400, 410, 800, 900, 1000, 1100, 1200]
LEVELS = [20 * number + 30 for number in range(9)]


@pytest.fixture
def source(tmp_path: Path, encode_video) -> Path:
    """Three videos, of which one has a text, a folder of frames, and three faults."""
    folder = tmp_path / "source"
    (folder / "frames").mkdir(parents=True)
    large = np.repeat(np.array(LEVELS, np.uint8), 48 * 66 * 3).reshape(9, 48, 66, 3)
    vp9 = {"cpu-used": "8", "deadline": "realtime"}
    videos = {
        "a.webm": encode_video(large, "webm", "libvpx-vp9", times=TIMES, options=vp9),
        "b.mp4": encode_video(LEVELS, key_every=2),
        "c.mkv": encode_video(LEVELS, "matroska", key_every=9),
        "text.mp4": b"no video",
    }
    videos["cut.mp4"] = videos["b.mp4"][:-100]
    for name, content in videos.items():
        (folder / name).write_bytes(content)
    (folder / "a.txt").write_text("nine levels")
    for number in range(3):
        Image.new("L", (20, 10), 50 * number).save(folder / f"frames/{number}.png")
    (folder / "torn").mkdir()
    (folder / "torn/0.png").write_bytes(b"no picture")
    return folder


def packed(source: Path, **settings: object) -> tuple[dict[str, bytes], dict]:
    given = {"format": "keep", "image_size": None, "key_every": 12, "crf": 18, **settings}
    out = source.parent / "out"
    report = pack(
        open_samples(str(source), VIDEO, role="training"),
        out=out,
        settings=ClipPack(shard_size=1.0, val=0.0, **given),
        num_workers=0,
        progress=lambda *_: None,
    )
    with tarfile.open(out / "train/shard-00000.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}, report


def levels(encoded: bytes, **changes: object) -> list[int]:
    values = {"image_size": 8, "channels": 1, "crop": "resize", "flip": False, "range": None}
    values |= {"background": "white", "frames": 1, "fps": None, "stride": 1, **changes}
    clip = ClipTransform(**values).decode_whole(encoded)
    return clip.float().mean(dim=(0, 2, 3)).round().int().tolist()


def test_videos_are_kept_as_they_are_and_faults_are_listed(source: Path) -> None:
    members, report = packed(source)
    kept = {name: (source / name).read_bytes() for name in ("a.webm", "b.mp4", "c.mkv")}
    frames = members.pop("frames.frames")
    assert members == {**kept, "a.txt": b"nine levels"}
    assert levels(frames) == [0, 50, 100]
    assert report["media"] == "video"
    (shard,) = report["train"]["shards"]
    assert shard["sizes"] == {
        "smallest": "3 frames of 20 x 10 px",
        "median": "9 frames of 32 x 24 px",
        "largest": "9 frames of 66 x 48 px",
    }
    assert shard["modes"] == {
        "frames": 1,
        "h264 yuv420p 10 fps": 2,
        "vp9 yuv420p 6.923 fps": 1,
    }
    reasons = {fault["key"]: fault["reason"] for fault in report["skipped"]}
    assert reasons.keys() == {"text", "cut", "torn"}
    assert reasons["cut"].startswith("it is cut off: ")
    assert reasons["torn"].startswith("no JPEG, ")
    # What is read from the pack is what was packed; its tars name where.
    index = open_samples(str(source.parent / "out"), VIDEO, role="training")
    found = {index.key(number): index.read(number) for number in range(len(index))}
    assert found == {**{name[0]: content for name, content in kept.items()}, "frames": frames}


def test_mp4_is_small_has_key_frames_and_the_times_of_the_frames(source: Path) -> None:
    members, _ = packed(source, format="mp4", image_size=24, key_every=2)
    assert members.keys() == {"a.mp4", "a.txt", "b.mp4", "c.mp4", "frames.frames"}
    assert members["b.mp4"] == (source / "b.mp4").read_bytes()  # it is so already
    for name in ("a.mp4", "c.mp4"):
        assert np.abs(np.subtract(levels(members[name]), LEVELS)).max() <= 3
        with open_frames(members[name]) as video:
            assert isinstance(video, Video)
            assert video.key_every == 2
            # 66 x 48 px at a short side of 24 is 33 x 24: an even 32.
            assert {frame.shape for frame in video.each(channels=3, background="white")} == {
                (24, 32, 3)
            }
    # The frames of variable rate are shown as long as before.
    before = (source / "a.webm").read_bytes()
    for fps in (10.0, 3.0):
        found = np.subtract(levels(before, fps=fps), levels(members["a.mp4"], fps=fps))
        assert np.abs(found).max() <= 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 64}, "image_size=64 needs format=mp4, which encodes again"),
        (
            {"format": "mp4", "image_size": 33},
            "image_size must be at least 2 and at most 8192 and an even number",
        ),
        ({"format": "webp"}, "format must be one of keep, mp4, got 'webp'"),
    ],
)
def test_impossible_settings_are_refused(source: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        packed(source, **changes)
