"""What ``vqtrain doctor`` says of pictures of all kinds, good and bad."""

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.planned import examine as examine_run
from vqtrain.data.sources.index import SampleIndex
from vqtrain.doctor import samples
from vqtrain.doctor.findings import Finding
from vqtrain.doctor.samples import describe_sizes

Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def examine(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Examine the pictures of a run, without its speed; give back each finding by its name."""
    monkeypatch.setattr(samples, "examine_speed", lambda *_, **__: iter(()))

    def run(*words: str, run: Sequence[str] = tiny[1:]) -> dict[str, Finding]:
        command_line = read_command_line([*run, *words])
        findings = list(examine_run(compose("train", command_line)))
        return {finding.name: finding for finding in findings}

    return run


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six pictures of other sizes and modes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    sizes = {
        "RGB": [(640, 480), (64, 200), (100, 100)],
        "L": [(2000, 70)],
        "RGBA": [(300, 200)],
        "I;16": [(90, 110)],
    }
    for mode, wide in sizes.items():
        for width, height in wide:
            file = folder / f"{mode.replace(';', '')}-{width}.png"
            Image.new(mode, (width, height)).save(file)
    return folder


def tar_of(path: Path, pictures: int) -> Path:
    """A tar of black pictures."""
    with tarfile.open(path, "w") as tar:
        for number in range(pictures):
            file = io.BytesIO()
            Image.new("RGB", (32, 32)).save(file, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
    return path


def test_pictures_are_counted_and_measured(examine: Examine, photographs: Path) -> None:
    total = sum(file.stat().st_size for file in photographs.iterdir())
    (photographs / "a.avif").write_bytes(b"x")
    found = examine(f"data.train={photographs}")
    assert found["not taken"].found == "1 file is neither an image nor a tar: .avif 1"
    assert found["images"].found == (
        f"6, files: 6, {total / 1000:.1f} kB, mean: {total / 6:.0f} bytes"
    )
    # Short sides: 64, 70, 90, 100, 200, 480; of six the fourth is the median.
    assert found["sizes"].found == (
        "smallest 64 x 200 px, median 100 x 100 px, largest 640 x 480 px"
    )
    modes, others = found["modes"].found.split(", ", 1)
    assert modes == "RGB: 3"
    assert set(others.split(", ")) == {"L: 1", "RGBA: 1", "I;16: 1"}
    assert {finding.mark for finding in found.values()} == {"ok"}


def test_pictures_that_cannot_be_read_are_named(examine: Examine, photographs: Path) -> None:
    (photographs / "text.jpg").write_text("no picture")
    (photographs / "empty.png").touch()
    half = (photographs / "RGB-640.png").read_bytes()
    (photographs / "RGB-640.png").write_bytes(half[: len(half) // 2])
    found = examine(f"data.train={photographs}")
    unreadable = found["unreadable"]
    assert unreadable.mark == "missing"
    counted, _, named = unreadable.found.partition(": ")
    assert counted == "3 of 8 that were tried"
    for name in ("RGB-640.png", "empty.png", "text.jpg"):
        assert f"'{name.split('.')[0]}' in {photographs / name} (" in named
    assert "(the file is empty)" in named
    # 3 of 8 is above 1 %.
    assert unreadable.remedy is not None
    assert unreadable.remedy.endswith("skips them and stops above data.max_bad_fraction=0.01")
    assert found["modes"].found.startswith("RGB: 2, ")


def test_sounds_are_measured_and_those_of_no_use_are_named(
    examine: Examine, sounds: Path, tmp_path: Path
) -> None:
    for sound in sorted(sounds.iterdir())[:3]:
        (tmp_path / sound.name).write_bytes(sound.read_bytes())
    (tmp_path / "cut.wav").write_bytes((tmp_path / "sound-00.wav").read_bytes()[:-400])
    soundfile.write(tmp_path / "long.ogg", np.zeros((16000, 2)), 16000)
    soundfile.write(tmp_path / "short.flac", np.zeros(99), 8000)
    run = ["data=sound", "encoder=jukebox", "decoder=jukebox", "metrics=[si_sdr]"]
    run += ["data.sample_rate=8000", "data.length=256", "trainer.accelerator=cpu"]
    found = examine(f"data.train={tmp_path}", run=run)
    assert found["sounds"].found.startswith("6, files: 6, ")
    assert found["unreadable"].found.startswith("2 of 6 that were tried: 'cut' in ")
    assert "(it is cut off: 1200 of 1600 bytes of its samples are there)" in (
        found["unreadable"].found
    )
    assert "(99 samples at 8000 Hz are fewer than the length of 256)" in found["unreadable"].found
    assert found["lengths"].found == "shortest 0.1 s, median 0.1 s, longest 1 s"
    modes = set(found["modes"].found.split(", "))
    assert modes == {
        "8000 Hz mono PCM_16: 2",
        "16000 Hz mono PCM_16: 1",
        "16000 Hz stereo VORBIS: 1",
    }


def test_clips_are_measured_beside_images(
    examine: Examine, encode_video: Callable[..., bytes], photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    levels = range(40, 220, 4)
    (folder / "a.mp4").write_bytes(encode_video(levels, key_every=12))
    (folder / "b.mkv").write_bytes(encode_video(levels, "matroska", key_every=45))
    times = [0, 100, 300, 350, 400, 900]
    (folder / "c.mp4").write_bytes(encode_video(levels[:6], times=times))
    (folder / "text.mp4").write_text("no video")
    run = ["data=video", "data.frames=3", "data.image_size=16", "trainer.accelerator=cpu"]
    for part in ("encoder", "decoder"):
        run += [f"{part}=magvit2_video", f"{part}.channels=8", f"{part}.num_blocks=1"]
        run += [f"{part}.multipliers=[1,2]", f"{part}.time_strides=[2]"]
    source = f"[{{videos: {folder}, weight: 1}}, {{images: {photographs}, weight: 1}}]"
    found = examine(f"data.train={source}", f"data.val={folder}", run=run)
    assert found["videos"].found.startswith("10, files: 10, ")
    assert found["unreadable"].found.startswith("1 of 4 that were tried: 'text' in ")
    shown = "shortest 6 frames (1 s), median 45 frames (4.5 s), longest 45 frames (4.5 s)"
    assert found["lengths"].found == shown
    assert found["key frames"].found.startswith("12 frames from one to the next")
    assert found["key frames"].mark == "ok"
    modes = set(found["modes"].found.split(", h"))
    assert modes == {"h264 yuv420p: 2", "264 yuv420p, variable rate: 1"}
    _, slow = samples.describe_clips([(9, 900, 9)] * 2 + [(250, 10000, 250)] * 3)
    assert (slow.mark, slow.found[:3]) == ("slow", "250")


def test_some_bad_pictures_do_not_stop_a_run(examine: Examine, photographs: Path) -> None:
    (photographs / "text.jpg").write_text("no picture")
    found = examine(f"data.train={photographs}", "data.max_bad_fraction=0.5")
    assert found["unreadable"].found.startswith("1 of 7 that were tried: 'text' in ")
    assert str(found["unreadable"].remedy).endswith("skips them and goes on")


def test_where_no_picture_can_be_read_nothing_else_is_said(
    examine: Examine, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    found = examine(f"data.train={tmp_path}")
    assert list(found) == ["images", "unreadable"]
    assert found["unreadable"].found.startswith("1 of 1 that were tried: ")


def test_a_tar_that_was_cut_off_is_named(examine: Examine, tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "whole.tar", pictures=3)
    cut = tar_of(tmp_path / "cut.tar", pictures=3)
    # A header and a padded picture are 1,024 bytes each time: this ends in the third header.
    cut.write_bytes(cut.read_bytes()[:2100])
    found = examine(f"data.train={tmp_path}/*.tar")
    assert found["images"].found.startswith("5, files: 2, ")
    assert found["faults"].mark == "missing"
    assert found["faults"].found.startswith(f"1 found in the files: {cut} (")
    assert str(whole) not in found["faults"].found
    assert found["faults"].remedy == "fetch or write them again; a run skips what they lack"


def index_of(paths: list[str], n: int) -> SampleIndex:
    """Pictures of 2,000 bytes, one after the other in each of the paths in turn."""
    return SampleIndex(
        paths=tuple(paths),
        path_ids=(np.arange(n) % len(paths)).astype(np.int32),
        offsets=np.zeros(n, np.int64),
        sizes=np.full(n, 2000, np.int64),
        keys=np.array([b"key"] * n),
        weights=np.ones(n, np.float32),
        ratios=np.full(n, np.nan, np.float32),
        stills=np.zeros(n, bool),
        faults=(),
    )


def test_many_small_files_on_a_server_should_be_packed() -> None:
    urls = [f"https://example.com/{number}.jpg" for number in range(1000)]
    (found,) = samples.examine_files(index_of(urls, 1000))
    assert found.found.startswith("1000, files: 1000, 2.0 MB, mean: 2.0 kB; each is fetched by")
    assert found.mark == "slow"
    assert "vqtrain pack " in str(found.remedy)
    for paths, n in ((urls[:999], 999), (urls[:10], 1000), (["/1.jpg"] * 1000, 1000)):
        (found,) = samples.examine_files(index_of(paths, n))
        assert found.mark == "ok"


def test_of_many_pictures_a_sample_is_read_evenly(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MAX_SAMPLE", 4)
    for number in range(10):
        Image.new("RGB", (64 + number, 100)).save(tmp_path / f"{number}.png")
    # Of 0 to 9 in four: 0, 3, 6, 9.
    for number in (1, 2, 4, 5, 7, 8):
        (tmp_path / f"{number}.png").write_bytes(b"not looked at")
    found = examine(f"data.train={tmp_path}")
    assert "unreadable" not in found
    assert found["images"].found.startswith("10, files: 10, ")
    assert found["sizes"].found == "smallest 64 x 100 px, median 70 x 100 px, largest 73 x 100 px"


def test_slow_pictures_are_not_waited_for(
    examine: Examine, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SAMPLE_S", -1.0)
    modes = examine(f"data.train={photographs}")["modes"].found
    assert modes in ("RGB: 1", "L: 1", "RGBA: 1", "I;16: 1")


@pytest.mark.parametrize(
    ("side", "downsampling", "hint"),
    [(63, 4, 60), (32, 4, 32), (8, 4, 12), (63, 16, 48), (8, 16, 16), (64, 4, None)],
)
def test_for_tiny_pictures_a_size_is_proposed(
    side: int, downsampling: int, hint: int | None
) -> None:
    # Multiples of the downsampling, and no less than the 11 px that SSIM can measure.
    text = describe_sizes([(side, side)] * 3, 64, downsampling).found
    expected = f"; smaller than data.image_size=64, try data.image_size={hint}"
    assert text.endswith(expected if hint else f"largest {side} x {side} px")


def test_a_list_of_sources_is_taken_as_everywhere(
    examine: Examine, pictures: Path, photographs: Path
) -> None:
    found = examine(f"data.train=[{pictures},{photographs}]")
    assert found["images"].found.startswith("54, files: 54, ")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0.0, "0 bytes"), (999.0, "999 bytes"), (1500.0, "1.5 kB"), (2e6, "2.0 MB"), (3e12, "3.0 TB")],
)
def test_bytes_are_written_for_people(size: float, text: str) -> None:
    assert samples.in_bytes(size) == text
