"""``vqtrain pack`` as its users meet it: what it says, what it refuses, how it is stopped."""

import json
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from vqtrain.app import pack as command
from vqtrain.build import config_of
from vqtrain.cli import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in an empty folder, with no processes to wait for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "count_cores", lambda: 0)


def names_in(folder: Path) -> set[str]:
    found: set[str] = set()
    for shard in folder.rglob("*.tar"):
        with tarfile.open(shard) as tar:
            found |= set(tar.getnames())
    return found


def test_the_last_screen_says_what_is_there_and_what_is_next(pictures, tmp_path, capsys):
    source = tmp_path / "my pictures"
    source.mkdir()
    for path in pictures.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / "twin.png").write_bytes((pictures / "picture-00.png").read_bytes())
    (source / "bad.jpg").write_text("text")
    assert main(["pack", f"images={source}", "out=a pack"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    report = json.loads((tmp_path / "a pack/index.json").read_text())
    lines = printed.out.splitlines()
    # 50 pictures, of which 16 at least are held out.
    samples = {name: report[name]["samples"] for name in ("train", "val")}
    assert sum(samples.values()) == 49
    for name in ("train", "val"):
        size = report[name]["bytes"] / 1e6
        assert f"{name:<12}{samples[name]} samples in 1 shard, {size:.1f} MB" in lines
    assert "skipped     1, all in a pack/index.json" in lines
    assert any(line.startswith("            bad: no JPEG") for line in lines)
    assert "duplicates  1, all in a pack/index.json" in lines
    assert "            picture-00 = twin" in lines
    assert lines[-1] == "  vqtrain train data.train='a pack'"


def test_a_complete_pack_is_said_to_be_one(pictures, capsys):
    words = ["pack", f"images={pictures}", "out=pack"]
    assert main(words) == 0
    first = capsys.readouterr().out.splitlines()
    assert main(words) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[0] == "pack was complete already"
    assert again[1:] == [line for line in first if "are done" not in line]


def test_without_a_terminal_there_is_a_line_for_each_shard(pictures, capsys):
    size = sum(path.stat().st_size for path in pictures.iterdir()) / 1e6
    assert main(["pack", f"images={pictures}", "val=0", f"shard_size={size:.3f}"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "are done" in line]
    shards = sorted(Path("packed/train").glob("*.tar"))
    assert len(shards) >= 2
    assert [line.split(":")[0] for line in lines[:-1]] == [f"train/{path.stem}" for path in shards]
    assert lines[0] == "train/shard-00000: 0 of 48 images are done"
    assert lines[-1] == f"train/{shards[-1].stem}: 48 of 48 images are done"


def test_on_a_terminal_there_is_a_bar(pictures, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["pack", f"images={pictures}"]) == 0
    printed = capsys.readouterr().out
    assert "val/shard-00000" in printed
    assert "are done" not in printed


@pytest.mark.parametrize("out", ["{000..003}", "a~b", "./~tilde", "a=b", "two words", "x]", "#1"])
def test_out_is_taken_as_typed(pictures, tmp_path, out):
    assert main(["pack", f"images={pictures}", f"out={out}", "val=0"]) == 0
    assert len(names_in(tmp_path / out)) == 48


def test_out_may_be_below_the_home_folder(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["pack", f"images={pictures}", "out=~/pack", "val=0"]) == 0
    assert len(names_in(tmp_path / "home/pack")) == 48


@pytest.mark.parametrize(
    ("media", "names", "words"),
    [
        ("sound", {"a.flac", "b.flac"}, ["format=flac", "sample_rate=16000"]),
        ("video", {"a.mp4", "b.mp4"}, ["format=mp4", "image_size=16", "key_every=2", "crf=30"]),
    ],
)
def test_clips_and_sounds_become_shards_to_train_on(
    media, names, words, tmp_path, encode_video, capsys
):
    (tmp_path / "source").mkdir()
    for name in ("a", "b"):
        if media == "sound":
            soundfile.write(tmp_path / f"source/{name}.ogg", np.sin(np.arange(4000)), 8000)
        else:
            video = encode_video([50, 60], "webm", "libvpx-vp9", options={"cpu-used": "8"})
            (tmp_path / f"source/{name}.webm").write_bytes(video)
    assert main(["pack", f"{media}s=source", *words, "val=0"]) == 0
    assert names_in(tmp_path / "packed") == names
    rate = " data.sample_rate=16000" * (media == "sound")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"  vqtrain train experiment={media}_demo data.train=packed name=mine{rate}"
    )


def test_several_sources_become_one_pack(pictures, tmp_path):
    assert main(["pack", f"images=['{pictures}','{pictures}']", "val=0"]) == 0
    assert len(names_in(tmp_path / "packed")) == 96


def test_the_settings_reach_the_shards(pictures, tmp_path, capsys):
    words = ["image_size=10", "format=raw", "crop=adm", "quality=50", "shard_size=1", "val=0.25"]
    assert main(["pack", f"images={pictures}", *words]) == 0
    report = json.loads((tmp_path / "packed/index.json").read_text())
    assert report["settings"] == {
        "image_size": 10,
        "crop": "adm",
        "format": "raw",
        "quality": 50,
        "shard_size": 1.0,
        "val": 0.25,
    }
    assert (report["train"]["samples"], report["val"]["samples"]) == (36, 12)
    assert {Path(name).suffix for name in names_in(tmp_path / "packed")} == {".npy"}
    shown = capsys.readouterr().out
    assert "\n  vqtrain train data.train=packed data.image_size=10\n" in shown


def test_help_shows_every_key_and_two_examples(capsys):
    assert main(["pack", "--help"]) == 0
    shown = capsys.readouterr().out
    for key, default in yaml.safe_load(config_of("command", "pack").read_text()).items():
        assert f"\n  {key:<12} " in shown
        if default != "???":
            assert f"[{'null' if default is None else default}]\n" in shown
    assert shown.count("  vqtrain pack images=") == 2
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the images: vqtrain pack images=IMAGES, or videos=VIDEOS or sounds=SOUNDS"),
        (["images={}", "sounds={}"], "images and sounds are of several media: give one of them"),
        (["sounds={}"], "holds no sounds"),
        (["sounds=demo", "image_size=8"], "image_size is for images, and sounds are given"),
        (["images={}", "key_every=8"], "key_every is for videos, and images are given"),
        (["images={}", "sample_rate=8000"], "sample_rate is for sounds, and images are given"),
        (["sounds=demo", "format=mp3"], "format must be one of keep, flac, got 'mp3'"),
        (["images=nowhere"], "images: nowhere does not exist"),
        (["images=empty"], "empty holds no images"),
        (["imagez=x"], "unknown key 'imagez', did you mean 'images'?"),
        (["images=5", "shard_sise=1"], "unknown key 'shard_sise', did you mean 'shard_size'?"),
        (["pictures"], "cannot read 'pictures': write key=value"),
        (["images={}", "format=jpg"], "got 'jpg'; did you mean jpeg?"),
        (["images={}", "quality=101"], "quality must be in [1, 100], got 101"),
        (["images={}", "quality=high"], "quality must be a whole number, got 'high'"),
        (
            ["images={}", "image_size=0"],
            "image_size must be at least 1 and at most 8192 or [height,width]",
        ),
        (["images={}", "image_size=2.5"], "image_size must be a whole number or [height,width]"),
        (["images={}", "format=raw"], "format=raw stores pixels of one size: give image_size"),
        (["images={}", "image_size=[8,9]"], "image_size=[8, 9] needs format=raw, which alone"),
        (["images={}", "crop=adm"], "crop=adm needs format=raw, which alone crops"),
        (["images={}", "crop=adq"], "got 'adq'; did you mean adm?"),
        (["images={}", "shard_size=0"], "shard_size must be above 0 and finite, got 0.0"),
        (["images={}", "val=0.9"], "val must be in [0, 0.5] or auto, got 0.9"),
        (["images={}", "val=none"], "val must be a number or auto, got 'none'"),
        (["images={}", "num_workers=-1"], "num_workers must be at least 0 or null, got -1"),
        (["images={}", "out=file"], "cannot write out=file: Not a directory"),
        (["images={}", "out=foreign"], "out=foreign holds notes.txt, which is not of vqtrain pack"),
        (["images={}", "out={}/packed"], "lies inside images="),
        (["images=[{images: demo, weight: 2}]"], "images have weights, which a pack does not"),
        (["images={}", "out=/proc/pack"], "cannot write out=/proc/pack: "),
        (["images={}", "--print-config"], "this command has no configuration"),
        (["images={}", "--halp"], "unknown option '--halp', did you mean '--help'?"),
    ],
)
def test_a_mistake_is_one_line(pictures, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").touch()
    assert main(["pack", *(word.replace("{}", str(pictures)) for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.startswith("vqtrain: ")
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "file", "foreign"}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_signal_ends_it_and_says_how_to_go_on(pictures, capsys, monkeypatch, number, code):
    packing = command.pack
    # A training run in this process has taken the signals over, and a shell may ignore them.
    taken = signal.signal(signal.SIGINT, signal.default_int_handler)

    def stopped(*arguments: object, **options: object) -> object:
        progress = options["progress"]

        def stop(shard: str, done: int, total: int) -> None:
            progress(shard, done, total)
            if done == 20:
                os.kill(os.getpid(), number)

        return packing(*arguments, **{**options, "progress": stop})

    words = ["pack", f"images={pictures}", "shard_size=0.02"]
    with monkeypatch.context() as patched:
        patched.setattr(command, "pack", stopped)
        assert main(words) == code
    signal.signal(signal.SIGINT, taken)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "stopped, shards are kept: run the same command again to continue"
    )
    kept = {path: path.stat().st_mtime_ns for path in Path("packed").rglob("*.tar")}
    assert kept
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(names_in(Path("packed"))) == 48


@pytest.mark.slow
def test_a_pack_trains(pictures, tiny, tmp_path, vqtrain):
    assert vqtrain("pack", f"images={pictures}", "out=a pack").returncode == 0
    done = vqtrain("train", *tiny[1:], "data.train=a pack", "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert "data: 32 training images, 16 validation images" in done.stdout
    assert (tmp_path / "run/tokenizer/config.json").is_file()


@pytest.mark.parametrize(
    "times", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.soak)]
)
def test_ctrl_c_at_a_terminal_is_one_line(
    times: int, tmp_path: Path, start_vqtrain: Callable[..., object]
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for number in range(300):
        Image.fromarray(np.roll(pixels, number)).save(folder / f"{number}.png", compress_level=1)
    process = start_vqtrain("pack", f"images={folder}", "shard_size=1", "num_workers=2", "val=0")
    # A shard may be whole before its line is due.
    later = (line for line in process.stdout if "train/shard-00001" < line[:17] < "train/shard-1")
    assert next(later, None) is not None, "it has ended before it was stopped"
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers also
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    if times == 1:
        assert (process.returncode, err) == (130, "")
        assert out.splitlines()[-1].startswith("stopped, shards are kept")
