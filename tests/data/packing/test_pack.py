"""Packs, read by tarfile and by webdataset's own reader, with hashes worked out here."""

import errno
import gc
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.loading.loaders import explained_workers
from vqtrain.data.packing.images import ImagePack
from vqtrain.data.packing.pack import pack
from vqtrain.data.packing.workers import map_images
from vqtrain.data.shards.writer import ShardWriter
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import hold_out
from vqtrain.errors import ConfigError, DataError, FailedError

# webdataset leaves its last shard open.
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
KEEP = {
    "image_size": None,
    "crop": "resize",
    "format": "keep",
    "quality": 95,
    "shard_size": 256.0,
    "val": 0.0,
}
Packing = Callable[..., dict]


def noise(seed: int, height: int = 12, width: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two classes of 20 pictures each, with captions; those of the first also with labels."""
    folder = tmp_path / "source"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            picture = folder / name / f"{number:03d}"
            noise(len(name) * 1000 + ord(name[0]) * 100 + number).save(f"{picture}.png")
            Path(f"{picture}.txt").write_text(f"{name} {number}")
    for number in range(20):
        (folder / f"cats/{number:03d}.json").write_text(json.dumps({"label": number}))
    return folder


@pytest.fixture
def packing(tmp_path: Path, source: Path) -> Packing:
    """Pack the source, or other images, with no processes unless they are asked for."""

    def run(
        out: str = "out", images: object = None, num_workers: int = 0, **settings: object
    ) -> dict:
        return pack(
            open_samples(str(source) if images is None else images, role="training"),
            out=tmp_path / out,
            settings=ImagePack(**{**KEEP, **settings}),
            num_workers=num_workers,
            progress=lambda *_: None,
        )

    return run


def members_of(out: Path) -> dict[str, bytes]:
    """Read all shards with tarfile."""
    found: dict[str, bytes] = {}
    for shard in sorted(out.rglob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.name not in found
                found[member.name] = tar.extractfile(member).read()
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def digest_of(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256(b).hexdigest() for name, b in files_of(folder).items()}


def test_every_file_is_packed_byte_for_byte(tmp_path, source, packing):
    packing()
    assert members_of(tmp_path / "out") == files_of(source)


@LEFT_OPEN
def test_webdataset_reads_the_samples_with_their_fields(tmp_path, source, packing):
    packing(shard_size=0.02)
    shards = sorted(map(str, (tmp_path / "out/train").glob("*.tar")))
    assert len(shards) > 1
    found = {
        sample["__key__"]: sample
        for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
    }
    assert len(found) == 40
    cat = found["cats/007"]
    assert cat["txt"] == "cats 7"
    assert cat["json"] == {"label": 7}
    with Image.open(source / "cats/007.png") as picture:
        np.testing.assert_array_equal(np.asarray(cat["png"]), np.asarray(picture))
    assert "json" not in found["dogs/007"]
    gc.collect()


def test_the_index_says_what_is_in_each_shard(tmp_path, packing):
    report = packing(shard_size=0.02, val="auto")
    out = tmp_path / "out"
    assert json.loads((out / "index.json").read_text()) == report
    assert {path.name for path in out.iterdir()} == {"index.json", "train", "val"}
    assert (report["format"], report["version"]) == ("vqtrain-pack", 1)
    # 2 % of 40 is 1, but 16 at least are held out.
    assert (report["train"]["samples"], report["val"]["samples"]) == (24, 16)
    entries = report["train"]["shards"] + report["val"]["shards"]
    assert [entry["name"] for entry in entries] == sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*.tar")
    )
    for entry in entries:
        content = (out / entry["name"]).read_bytes()
        assert entry["bytes"] == len(content) <= 20_000
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        with tarfile.open(out / entry["name"]) as tar:
            pictures = [name for name in tar.getnames() if name.endswith(".png")]
        assert entry["samples"] == len(pictures)
        assert entry["modes"] == {"RGB": len(pictures)}
        assert entry["sizes"] == dict.fromkeys(("smallest", "median", "largest"), "16 x 12")
    assert report["train"]["bytes"] == sum(e["bytes"] for e in report["train"]["shards"])
    assert (report["skipped"], report["duplicates"]) == ([], [])


def test_members_files_point_at_the_pictures(tmp_path, packing):
    packing(shard_size=0.02)
    for shard in (tmp_path / "out/train").glob("*.tar"):
        content = shard.read_bytes()
        with tarfile.open(shard) as tar:
            expected = {
                member.name: (member.offset_data, member.size)
                for member in tar
                if member.name.endswith(".png")
            }
        with np.load(shard.with_suffix(".members.npz")) as members:
            rows = zip(members["keys"], members["offsets"], members["sizes"], strict=True)
            found = {f"{key.decode()}.png": (offset, size) for key, offset, size in rows}
        assert found == expected
        assert all(content[offset:].startswith(b"\x89PNG") for offset, _ in found.values())


def test_a_pack_is_opened_by_its_folder(tmp_path, source, packing):
    packing(val=0.25)
    found = {}
    for role, count in (("training", 30), ("validation", 10)):
        index = open_samples(str(tmp_path / "out"), role=role)
        assert len(index) == count
        found |= {index.key(i): index.read(i) for i in range(len(index))}
    assert {f"{key}.png": content for key, content in found.items()} == {
        name: content for name, content in files_of(source).items() if name.endswith(".png")
    }


def test_classes_are_mixed_in_each_shard(tmp_path, packing):
    packing(shard_size=0.02)
    for shard in (tmp_path / "out/train").glob("*.tar"):
        with tarfile.open(shard) as tar:
            assert {name.split("/")[0] for name in tar.getnames()} == {"cats", "dogs"}


def test_auto_holds_out_what_training_would(tmp_path, source, packing):
    packing(val="auto")
    _, held_out = hold_out(open_samples(str(source), role="training"))
    with tarfile.open(tmp_path / "out/val/shard-00000.tar") as tar:
        keys = {name.split(".")[0] for name in tar.getnames()}
    assert keys == {held_out.key(i) for i in range(len(held_out))}


def test_a_share_is_held_out(packing):
    report = packing(val=0.25)
    assert (report["train"]["samples"], report["val"]["samples"]) == (30, 10)


def test_equal_pictures_are_listed_and_stay_on_one_side(tmp_path, source, packing):
    for number in range(20):  # every cat three times, under other names
        for copy in ("x", "y"):
            twin = source / f"dogs/{copy}{number:03d}.png"
            twin.write_bytes((source / f"cats/{number:03d}.png").read_bytes())
    report = packing(val=0.25)
    sides = {
        name: {
            hashlib.sha256(content).hexdigest()
            for key, content in members_of(tmp_path / "out" / name).items()
            if key.endswith(".png")
        }
        for name in ("train", "val")
    }
    assert sides["train"] & sides["val"] == set()
    assert sides["val"]
    assert report["train"]["samples"] + report["val"]["samples"] == 80
    assert report["duplicates"] == [
        [f"cats/{n:03d}", f"dogs/x{n:03d}", f"dogs/y{n:03d}"] for n in range(20)
    ]


def test_what_cannot_be_read_is_skipped_and_listed(tmp_path, source, packing, monkeypatch):
    whole = (source / "cats/000.png").read_bytes()
    (source / "cats/cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "cats/empty.jpg").touch()
    (source / "cats/text.jpg").write_text("not a picture")
    Image.new("L", (400, 400)).save(source / "cats/bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 79_999)  # Pillow refuses twice as many
    report = packing()
    reasons = {fault["key"]: fault["reason"] for fault in report["skipped"]}
    assert set(reasons) == {"cats/cut", "cats/empty", "cats/text", "cats/bomb"}
    assert reasons["cats/empty"] == "the file is empty"
    assert reasons["cats/text"].startswith("no JPEG, PNG, ")
    assert "decompression bomb" in reasons["cats/bomb"]
    assert {fault["shard"] for fault in report["skipped"]} == {
        *("cut.png", "empty.jpg", "text.jpg", "bomb.png"),
    }
    assert str(tmp_path) not in (tmp_path / "out/index.json").read_text()
    assert report["train"]["samples"] == 40
    assert set(members_of(tmp_path / "out")) == {
        name for name in files_of(source) if Path(name).stem.isdigit()
    }


def test_every_one_of_many_is_listed(tmp_path, packing):
    folder = tmp_path / "mostly-bad"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.png").write_text("no picture")
    noise(0).save(folder / "good.png")
    report = packing(images=str(folder))
    assert {fault["key"] for fault in report["skipped"]} == set(map(str, range(30)))
    assert set(members_of(tmp_path / "out")) == {"good.png"}


def test_nothing_readable_is_an_error(tmp_path, packing):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_text("no picture")
    with pytest.raises(DataError, match=r"none of 2 images for train can be read: the first, '"):
        packing(images=str(folder))
    assert not (tmp_path / "out/index.json").exists()


def test_the_short_side_is_reduced_and_never_enlarged(tmp_path, packing):
    folder = tmp_path / "sizes"
    folder.mkdir()
    noise(0, 90, 60).save(folder / "large.png")
    noise(1, 40, 200).save(folder / "wide.jpg")
    noise(2, 20, 30).save(folder / "small.jpg")
    packing(images=str(folder), image_size=30)
    found = members_of(tmp_path / "out")
    sizes = {name: Image.open(io.BytesIO(content)).size for name, content in found.items()}
    # 60 x 90 halves; 200 x 40 by 3/4; the small one is left alone.
    assert sizes == {"large.png": (30, 45), "wide.jpg": (150, 30), "small.jpg": (30, 20)}
    assert found["small.jpg"] == (folder / "small.jpg").read_bytes()
    expected = noise(0, 90, 60).resize((30, 45), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(found["large.png"]))), np.asarray(expected)
    )


@pytest.mark.parametrize(
    ("word", "suffix", "kind"),
    [("jpeg", "jpg", "JPEG"), ("png", "png", "PNG"), ("webp", "webp", "WEBP")],
)
def test_a_format_is_asked_for(tmp_path, packing, word, suffix, kind):
    folder = tmp_path / "kinds"
    folder.mkdir()
    picture = Image.linear_gradient("L").convert("RGB").resize((16, 12))
    for name in ("a.png", "b.jpg", "c.webp", "d.bmp"):
        picture.save(folder / name)
    packing(images=str(folder), format=word, quality=90)
    found = members_of(tmp_path / "out")
    assert sorted(found) == [f"{stem}.{suffix}" for stem in "abcd"]
    assert {Image.open(io.BytesIO(content)).format for content in found.values()} == {kind}
    kept = {"jpg": "b.jpg", "png": "a.png", "webp": "c.webp"}[suffix]
    assert found[kept] == (folder / kept).read_bytes()
    if word == "jpeg":
        expected = io.BytesIO()
        picture.save(expected, "JPEG", quality=90, subsampling=0)
        assert found["d.jpg"] == expected.getvalue()
    for content in found.values():
        difference = np.asarray(Image.open(io.BytesIO(content))) - np.asarray(picture, np.int16)
        assert np.abs(difference).max() <= 24


def test_encoding_anew_turns_upright_and_keeps_transparency(tmp_path, packing):
    folder = tmp_path / "odd"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    noise(0, 40, 60).save(folder / "turned.jpg", exif=exif)
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(folder / "deep.png")
    np.save(folder / "array.npy", np.zeros((40, 40, 5), np.float32))
    packing("small", str(folder), image_size=20)
    found = members_of(tmp_path / "small")
    assert Image.open(io.BytesIO(found["turned.jpg"])).size == (20, 30)
    assert Image.open(io.BytesIO(found["clear.png"])).getpixel((0, 0))[3] == 0
    # Pictures of more than 8 bits are left as they are.
    for name in ("deep.png", "array.npy"):
        assert found[name] == (folder / name).read_bytes()
    report = packing("jpeg", str(folder), format="jpeg")
    pixel = Image.open(io.BytesIO(members_of(tmp_path / "jpeg")["clear.jpg"])).getpixel((0, 0))
    assert min(pixel) >= 250
    assert report["train"]["shards"][0]["modes"] == {
        "I;16": 1,
        "RGB": 1,
        "RGBA": 1,
        "float32 5": 1,
    }


def test_the_field_is_named_by_the_content(tmp_path, packing):
    folder = tmp_path / "named"
    folder.mkdir()
    noise(0).save(folder / "a.jpg", "PNG")
    packing(images=str(folder))
    assert set(members_of(tmp_path / "out")) == {"a.png"}


def test_names_that_clash_are_told_apart(tmp_path, packing):
    folder = tmp_path / "clash"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "a.b.png", "a_b.png"):
        noise(len(name)).save(folder / name)
    (folder / "a.txt").write_text("of both")
    (folder / "a.b.txt").write_text("of one")
    packing(images=[str(folder), str(folder)])
    found = members_of(tmp_path / "out")
    pictures = {name for name in found if not name.endswith(".txt")}
    assert pictures == {
        *("a.jpg", "a-2.png", "a-3.jpg", "a-4.png"),
        *("a_b.png", "a_b-2.png", "a_b-3.png", "a_b-4.png"),
    }
    captions = {name: found[name] for name in found if name.endswith(".txt")}
    assert captions["a.txt"] == captions["a-2.txt"] == b"of both"
    assert sum(caption == b"of one" for caption in captions.values()) == 2


def test_fields_of_a_tar_are_kept(tmp_path, encode, write_tar, sparse_member, packing):
    first, second, mask = (encode(noise(seed)) for seed in range(3))
    members = {
        "a/0.txt": b"before",
        "a/0.png": first,
        "a/0.seg.png": mask,
        "a/0.CLS": b"3",
        "a/1.png": second,
        "a/._1.txt": b"hidden",
        "b/0.txt": b"of nothing",
    }
    # In the second of two tars, and beside one that lies in no piece of the tar.
    tar = write_tar(tmp_path / "a.tar", {"c/0.png": encode(noise(3))})
    (tmp_path / "b.tar").write_bytes(
        tar.read_bytes()
        + sparse_member("a/0.json", "gnu")
        + write_tar(tmp_path / "c.tar", members).read_bytes()
    )
    report = packing(images=str(tmp_path / "b.tar"))
    (skipped,) = report["skipped"]
    assert skipped["reason"].startswith("its field json is left out: it is stored with holes")
    found = members_of(tmp_path / "out")
    del found["c/0.png"]
    assert found == {
        "a/0.png": first,
        "a/0.seg.png": mask,
        "a/0.cls": b"3",
        "a/0.txt": b"before",
        "a/1.png": second,
    }


def test_a_second_picture_keeps_a_name_of_its_own(tmp_path, encode, write_tar, packing):
    members = {"0.png": encode(noise(0)), "0.jpg": encode(noise(1), "JPEG")}
    packing(images=str(write_tar(tmp_path / "a.tar", members)), format="jpeg")
    found = members_of(tmp_path / "out")
    assert set(found) == {"0.jpg", "0.2.jpg"}
    assert found["0.2.jpg"] == members["0.jpg"]


def test_fields_that_differ_in_case_alone_are_one(tmp_path, packing):
    folder = tmp_path / "case"
    folder.mkdir()
    noise(0).save(folder / "a.png")
    (folder / "a.TXT").write_text("first")
    (folder / "a.txt").write_text("second")
    report = packing(images=str(folder))
    assert members_of(tmp_path / "out")["a.txt"] == b"first"
    (fault,) = report["skipped"]
    assert fault["key"] == "a"
    assert fault["reason"] == "it has a second field txt, which is left out"


@LEFT_OPEN
def test_long_names_and_other_scripts_are_kept(tmp_path, packing):
    folder = tmp_path / ("d" * 120)
    names = ["n" * 120, "\u732b", "two words"]
    folder.mkdir()
    for number, name in enumerate(names):
        noise(number).save(folder / f"{name}.png")
    packing(images=str(tmp_path / "d*"))
    shard = str(tmp_path / "out/train/shard-00000.tar")
    keys = {sample["__key__"] for sample in webdataset.WebDataset(shard, shardshuffle=False)}
    assert keys == {f"{folder.name}/{name}" for name in names}
    assert {i.split("/")[1].removesuffix(".png") for i in members_of(tmp_path / "out")} == set(
        names
    )


def test_a_pack_does_not_depend_on_processes_or_place(tmp_path, source, packing):
    settings = {"shard_size": 0.02, "val": 0.25, "image_size": 8}
    packing("one", **settings)
    source.rename(tmp_path / "moved")
    packing("two", str(tmp_path / "moved"), num_workers=2, **settings)
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")


def test_a_complete_pack_is_left_alone(tmp_path, packing):
    report = packing(shard_size=0.02)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert packing(shard_size=0.02) == report
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert {p: t for p, t in after.items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_a_complete_pack_that_lost_a_shard_is_refused(tmp_path, packing):
    packing(shard_size=0.02)
    (tmp_path / "out/train/shard-00001.tar").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.tar is missing or has changed"):
        packing(shard_size=0.02)


def test_a_full_disk_keeps_what_is_whole(tmp_path, packing, monkeypatch):
    packing("whole", shard_size=0.02, val=0.25)
    writes = ShardWriter._write
    written = []

    def fail(self: object, content: bytes) -> None:
        written.append(len(content))
        if sum(written) > 25_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writes(self, content)

    monkeypatch.setattr(ShardWriter, "_write", fail)
    with pytest.raises(
        FailedError, match="No space left on device; what is written is kept"
    ) as raised:
        packing(shard_size=0.02, val=0.25)
    assert raised.value.exit_code == 1
    out = tmp_path / "out"
    assert [path.name for path in out.rglob("*.tar")] == ["shard-00000.tar"]
    assert not (out / "index.json").exists()
    kept = (out / "train/shard-00000.tar").stat().st_mtime_ns
    monkeypatch.undo()
    packing(shard_size=0.02, val=0.25)
    assert (out / "train/shard-00000.tar").stat().st_mtime_ns == kept
    assert digest_of(out) == digest_of(tmp_path / "whole")


def interrupted(packing: Packing, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Pack until the second shard is to be finished."""
    finish = ShardWriter.finish

    def stop(self: ShardWriter, folder: Path) -> object:
        if "00001" in self._name:
            raise KeyboardInterrupt
        return finish(self, folder)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            packing(**settings)


@pytest.mark.parametrize("damage", ["cut", "gone", "notes"])
def test_a_damaged_shard_is_written_anew(tmp_path, packing, monkeypatch, damage):
    packing("whole", shard_size=0.02)
    interrupted(packing, monkeypatch, shard_size=0.02)
    shard = tmp_path / "out/train/shard-00000.tar"
    match damage:
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-512])
        case "gone":
            shard.unlink()
        case "notes":
            (tmp_path / "out/.pack/train-shard-00000.json").write_bytes(b"")
    packing(shard_size=0.02)
    assert digest_of(tmp_path / "out") == digest_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 8}, "with image_size=null, not 8: give image_size=null, or another out"),
        ({"val": 0.1}, "with val=0, not 0.1: give val=0, or another out"),
    ],
)
@pytest.mark.parametrize("is_complete", [True, False])
def test_other_settings_are_refused(packing, monkeypatch, changed, message, is_complete):
    if is_complete:
        packing(shard_size=0.02)
    else:
        interrupted(packing, monkeypatch, shard_size=0.02)
    with pytest.raises(ConfigError, match=message):
        packing(**{"shard_size": 0.02, **changed})


def test_other_images_are_refused(source, packing, monkeypatch):
    interrupted(packing, monkeypatch, shard_size=0.02)
    (source / "cats/003.txt").write_text("a longer caption")
    with pytest.raises(ConfigError, match="of other images, or of some that have changed"):
        packing(shard_size=0.02)
    noise(99).save(source / "cats/new.png")
    with pytest.raises(ConfigError, match="of 40 images, now there are 41"):
        packing(shard_size=0.02)


@pytest.mark.parametrize(
    "name", ["notes.txt", "train/shard-00000.tar", "index.json", "train/x.png"]
)
def test_a_folder_of_other_files_is_refused(tmp_path, packing, name):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(ConfigError, match=f"holds {name}, which is not of vqtrain pack"):
        packing()
    assert files_of(tmp_path / "out") == {name: b"{}"}


def test_a_refused_pack_leaves_no_folder(tmp_path, packing):
    with pytest.raises(ConfigError, match=r"val=0\.001 leaves none of 40 images"):
        packing(val=0.001)
    assert not (tmp_path / "out").exists()


def test_raw_stores_the_pixels_that_training_sees(tmp_path, packing):
    folder = tmp_path / "kinds"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    noise(0, 20, 31).save(folder / "color.png")
    noise(1, 20, 31).save(folder / "turned.png", exif=exif)
    noise(2, 20, 31).convert("L").save(folder / "gray.png")
    Image.new("RGBA", (20, 31), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.fromarray(np.full((20, 31), 257 * 40, np.uint16)).save(folder / "deep.png")
    np.save(folder / "array.npy", np.asarray(noise(3, 20, 31)))
    np.save(folder / "floats.npy", np.zeros((20, 31), np.float32))
    noise(4, 60, 40).save(folder / "large.jpg")
    report = packing(
        images=str(folder), format="raw", image_size=[8, 12], crop="native", num_workers=1
    )
    assert [(fault["key"], fault["reason"][:17]) for fault in report["skipped"]] == [
        ("floats", "pixels of float32")
    ]
    (shard,) = report["train"]["shards"]
    assert shard["sizes"] == dict.fromkeys(("smallest", "median", "largest"), "12 x 8")
    found = {
        name.removesuffix(".npy"): np.load(io.BytesIO(content))
        for name, content in members_of(tmp_path / "out").items()
    }
    # The middle of 20 x 31 pixels begins at row 6 and, as 9.5 is rounded to even, column 10.
    middle = (slice(6, 14), slice(10, 22))
    np.testing.assert_array_equal(found["color"], np.asarray(noise(0, 20, 31))[middle])
    np.testing.assert_array_equal(found["turned"], np.asarray(noise(1, 20, 31).rotate(180))[middle])
    gray = np.asarray(noise(2, 20, 31).convert("L"))[middle]
    np.testing.assert_array_equal(found["gray"], gray[..., None])
    assert (found["clear"].shape, found["clear"].min()) == ((8, 12, 3), 255)
    np.testing.assert_array_equal(found["deep"], np.full((8, 12, 1), 40, np.uint8))
    np.testing.assert_array_equal(found["array"], np.asarray(noise(3, 20, 31))[middle])
    jpeg = np.asarray(Image.open(folder / "large.jpg"))[26:34, 14:26]
    assert np.abs(found["large"].astype(int) - jpeg).max() <= 2
    # Named as data.train, without a word on what it is.
    transform = ImageTransform(
        image_size=[8, 12],
        channels=3,
        crop="resize",
        flip=False,
        range=None,
        background="white",
    )
    index = open_samples(str(tmp_path / "out"), role="training")
    assert len(index) == len(found)
    for i in range(len(index)):
        pixels = transform.decode(index.read(i), np.random.default_rng(0))
        expected = np.broadcast_to(found[index.key(i)], (8, 12, 3))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), expected)


def test_images_with_weights_are_refused(source, packing):
    with pytest.raises(ConfigError, match="weights, which a pack does not hold"):
        packing(images=[{"images": str(source), "weight": 2}])


def test_a_single_image_is_not_split(source, packing):
    with pytest.raises(ConfigError, match="1 image cannot be split: give val=0"):
        packing(images=str(source / "cats/000.png"), val="auto")


def test_two_packs_do_not_write_into_one_folder(tmp_path, source, packing):
    settings = ImagePack(**{**KEEP, "shard_size": 0.02})
    refused = []

    def meanwhile(*_: object) -> None:
        if not refused:
            with pytest.raises(ConfigError, match="is being written by another vqtrain pack") as e:
                packing(shard_size=0.02)
            refused.append(e)

    index = open_samples(str(source), role="training")
    pack(index, out=tmp_path / "out", settings=settings, num_workers=0, progress=meanwhile)
    assert refused
    assert len(members_of(tmp_path / "out")) == 100


def test_a_pack_is_not_packed_into_itself(tmp_path, packing):
    packing()
    with pytest.raises(ConfigError, match="holds some of the images"):
        packing(images=str(tmp_path / "out/train/shard-00000.tar"))


def test_a_worker_that_is_killed_is_said(source):
    images = open_samples(str(source), role="training")
    with (
        pytest.raises(FailedError, match="was killed, perhaps because memory ran out") as raised,
        explained_workers(1),
    ):
        list(map_images(os._exit, np.array([9]), images, num_workers=1))
    assert raised.value.exit_code == 1


KILLED = """
import sys
from pathlib import Path
from vqtrain.data.packing.images import ImagePack
from vqtrain.data.packing.pack import pack
from vqtrain.data.sources.find import open_samples
import time

def slowly(shard, done, total):
    print(shard, done, flush=True)
    time.sleep(0.01)

if __name__ == "__main__":
    settings = ImagePack(**{**KEEP, "image_size": 8, "shard_size": 0.02, "val": 0.25})
    pack(
        open_samples(sys.argv[1], role="training"),
        out=Path(sys.argv[2]), settings=settings, num_workers=2, progress=slowly,
    )
"""


@pytest.mark.slow
def test_a_killed_pack_continues_to_equal_bytes(tmp_path, source, packing, start_python):
    settings = {"image_size": 8, "shard_size": 0.02, "val": 0.25}
    packing("whole", **settings)
    script = tmp_path / "script.py"
    script.write_text(f"KEEP = {KEEP}\n{KILLED}")
    groups = []
    for lines in (5, 18, 10):  # each continues at the image
        process = start_python(
            *(script, source, tmp_path / "out"), stdout=subprocess.PIPE, start_new_session=True
        )
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        groups.append(process.pid)
        assert not (tmp_path / "out/index.json").exists()
    deadline = time.monotonic() + 10
    while groups and time.monotonic() < deadline:  # the workers end by themselves
        try:
            os.killpg(groups[-1], 0)
            time.sleep(0.05)
        except ProcessLookupError:
            groups.pop()
    for group in groups:
        os.killpg(group, signal.SIGKILL)
    assert not groups, "a worker outlived the process that started it"
    assert list((tmp_path / "out").rglob("*.tar"))
    packing(**settings)
    assert digest_of(tmp_path / "out") == digest_of(tmp_path / "whole")
