"""Every form of IMAGES that is on this machine, and every way to get it wrong."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.media import SOUND, VIDEO
from vqtrain.data.sources import find as module
from vqtrain.data.sources.find import expand_braces, open_samples, training_and_validation
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import write_members
from vqtrain.errors import ConfigError, DataError


def keys_of(index: SampleIndex) -> list[str]:
    return [index.key(i) for i in range(len(index))]


def opened(images: object) -> list[str]:
    return keys_of(open_samples(images, role="training"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Hold four pictures, of which one is in a sub-folder, among other files."""
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    (place / ".hidden").mkdir()
    for name in ("b.png", "a.JPG", "sub/c.webp", "d.tiff", "notes.txt", ".e.png", ".hidden/f.png"):
        (place / name).write_bytes(name.encode())
    return place


@pytest.fixture
def shards(tmp_path, write_tar) -> Path:
    """Hold the tars s-08, s-09 and s-10, each with one picture named after it."""
    place = tmp_path / "shards"
    place.mkdir()
    for i in ("08", "09", "10"):
        write_tar(place / f"s-{i}.tar", {f"{i}.jpg": b"x"})
    return place


@pytest.fixture
def tiny_demo(tmp_path, write_tar, monkeypatch):
    """Stand in for the demo's shards."""
    for role in ("training", "validation"):
        write_tar(tmp_path / f"{role}.tar", {f"{role}.png": b"x"})
    monkeypatch.setattr(module, "demo_shards", lambda role, _media: [str(tmp_path / f"{role}.tar")])


def test_a_folder_is_searched_and_sorted(folder):
    assert opened(str(folder)) == ["a", "b", "d", "sub/c"]
    assert opened(f"{folder}/") == ["a", "b", "d", "sub/c"]
    assert open_samples(str(folder), role="training").read(3) == b"sub/c.webp"


SPELLINGS = [
    "photos",
    "./photos",
    "photos/",
    "sub//../photos",
    "{0}/photos",
    "{0}//photos/.",
    "link",
]


@pytest.mark.parametrize("ending", ["", "/*", "/**"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_spelling_of_a_folder_changes_no_name(folder, monkeypatch, spelling, ending):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "sub").mkdir()
    (folder.parent / "link").symlink_to("photos")
    assert opened(spelling.format(folder.parent) + ending) == ["a", "b", "d", "sub/c"]


def test_the_spelling_of_a_folder_changes_no_held_out_image(tmp_path, monkeypatch):
    """Images of one name are told apart by their files, however those are spelled."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.png").write_bytes(f"{name}{number}".encode())
    (tmp_path / "z").symlink_to("a")
    held_out = []
    for spelled in ("a", "./a", "z", str(tmp_path / "b" / ".." / "a")):
        _, index = training_and_validation([spelled, "b"], "auto")
        held_out.append({index.read(i) for i in range(len(index))})
    assert held_out == [held_out[0]] * 4


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "g.png").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "sub" / "circle").symlink_to(folder)
    assert opened(str(folder)) == ["a", "b", "d", "link/g", "sub/c"]


def test_a_folder_of_tars_is_its_tars(shards):
    assert opened(str(shards)) == ["08", "09", "10"]


def test_a_folder_with_pictures_is_its_pictures(shards):
    (shards / "a.png").write_bytes(b"x")
    index = open_samples(str(shards), role="training")
    assert keys_of(index) == ["a"]
    assert index.others == {".tar": 3}


def test_single_files(folder, shards):
    assert opened(str(folder / "sub" / "c.webp")) == ["c"]
    assert opened(str(shards / "s-09.tar")) == ["09"]


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["b"]),
        ("photos/*", ["a", "b", "d", "sub/c"]),  # as the folder: text is passed over, sub searched
        ("photos/**", ["a", "b", "d", "sub/c"]),  # c matches twice but counts once
        ("pho*/**/*.webp", ["photos/sub/c"]),
        ("photos/[ab].*", ["a", "b"]),
        ("shards/s-0?.tar", ["08", "09"]),
        ("sh*", ["08", "09", "10"]),
        ("shards/s-{08..10}.tar", ["08", "09", "10"]),
        ("shards/s-{10,08}.tar", ["10", "08"]),
        ("{photos/*.png,shards}", ["b", "08", "09", "10"]),
    ],
)
def test_globs_and_brace_lists(folder, pattern, expected):
    assert opened(f"{folder.parent}/{pattern}") == expected
    assert opened([str(folder), f"{folder.parent}/{pattern}"])[4:] == expected


def test_relative_paths_and_globs(folder, shards, monkeypatch):
    monkeypatch.chdir(shards)
    tar = open_samples("s-*8.tar", role="training")
    monkeypatch.chdir(folder)
    assert tar.read(0) == b"x"
    assert opened("*.png") == ["b"]
    assert opened(".") == ["a", "b", "d", "sub/c"]
    index = open_samples("sub", role="training")
    monkeypatch.chdir("/")
    assert index.read(0) == b"sub/c.webp"


def test_the_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert opened("~/photos/*.png") == ["b"]


@pytest.mark.parametrize("name", ["a[1]{x}", "{b,c}", "d*", "e = f", "#'i\""])
def test_a_path_that_exists_is_literal(folder, name):
    place = folder.parent / name
    place.mkdir(parents=True)
    (place / "only.png").write_bytes(b"x")
    (folder.parent / "b").mkdir()
    (folder.parent / "dog.png").write_bytes(b"x")
    assert opened(str(place)) == ["only"]


def test_a_list_is_joined_in_its_order(folder, shards):
    assert opened([str(shards / "s-10.tar"), str(folder / "b.png")]) == ["10", "b"]
    assert opened((str(folder / "b.png"),)) == ["b"]


def test_a_file_name_of_any_bytes_is_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    index = open_samples(str(tmp_path), role="training")
    assert index.read(0) == b"x"
    assert os.fsencode(index.key(0)) == b"caf\xe9"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a"]),
        ("a{1,2}b{x,}", ["a1bx", "a1b", "a2bx", "a2b"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{0..10}", [str(number) for number in range(11)]),
        ("{000..002}", ["000", "001", "002"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,{b,c}}", ["a", "b", "c"]),
        ("{x}{}", ["{x}{}"]),
        ("{a..c}", ["{a..c}"]),
        ("{x}{1,2}", ["{x}1", "{x}2"]),
        ("open{1,2", ["open{1,2"]),
    ],
)
def test_braces(pattern, expected):
    assert expand_braces(pattern) == expected


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("phots", r"phots does not exist: did you mean \S*/photos\?$"),
        ("phots/sub/*.png", r"phots/sub/\*\.png does not exist: did you mean \S*/photos\?$"),
        ("photos/c.png", r"c\.png does not exist: did you mean \S*/photos/b\.png\?$"),
        ("entirely/other", r"entirely/other does not exist$"),
        ("photos/*.bmp", r"no file matches \S*/photos/\*\.bmp$"),
        ("photos/b.png/x", r"photos/b\.png/x does not exist$"),
        ("shards/s-{08..12}.tar", r"s-11\.tar does not exist: did you mean \S*/s-10\.tar\?$"),
        ("x" * 300, r"x does not exist$"),
        ("photos/notes.txt", r"notes\.txt is neither a tar nor an image: .*\.jpg"),
        ("photos/*.txt", r"photos/\*\.txt holds no images: looked for tars and images .*\.jpg"),
    ],
)
def test_wrong_paths_are_explained(folder, wrong, message):
    with pytest.raises(DataError, match=message):
        opened(f"{folder.parent}/{wrong}")


def test_a_source_without_images_is_named(tmp_path, write_tar):
    (tmp_path / "empty").mkdir()
    tar = write_tar(tmp_path / "text.tar", {"a.txt": b"x"})
    for source in (tmp_path / "empty", tar):
        with pytest.raises(DataError, match=rf"{source.name} holds no images: looked for"):
            opened(str(source))


@pytest.mark.parametrize("images", [[], "", ["demo", ""]])
def test_no_source_is_refused(images):
    with pytest.raises(DataError, match="images: a source is empty"):
        opened(images)


@pytest.mark.usefixtures("tiny_demo")
def test_demo_follows_the_role():
    assert keys_of(open_samples("demo", role="training")) == ["training"]
    assert keys_of(open_samples("demo", role="validation")) == ["validation"]


@pytest.mark.usefixtures("tiny_demo")
@pytest.mark.parametrize("train", ["demo", ["demo"]])
def test_validation_of_the_demo_is_its_own(train):
    training, validation = training_and_validation(train, "auto")
    assert (keys_of(training), keys_of(validation)) == (["training"], ["validation"])


@pytest.mark.usefixtures("tiny_demo")
def test_validation_may_be_the_demo(folder):
    training, validation = training_and_validation(str(folder), "demo")
    assert (len(training), keys_of(validation)) == (4, ["validation"])


def test_automatic_validation_is_held_out(folder):
    training, validation = training_and_validation(str(folder), "auto")
    assert len(training) == len(validation) == 2  # never more than half
    assert sorted(keys_of(training) + keys_of(validation)) == ["a", "b", "d", "sub/c"]


def test_validation_of_its_own_leaves_training_whole(folder, shards):
    training, validation = training_and_validation(str(folder), [str(shards)])
    assert (len(training), len(validation)) == (4, 3)


def test_a_damaged_shard_is_a_fault_beside_others(shards):
    (shards / "s-09.tar").write_bytes(b"")
    index = open_samples(f"{shards}/s-{{08..10}}.tar", role="training")
    assert keys_of(index) == ["08", "10"]
    assert [(fault.shard, fault.reason) for fault in index.faults] == [
        (f"{shards}/s-09.tar", "the file is empty")
    ]


def test_a_source_of_faults_alone_names_the_first(shards):
    for i in ("08", "09"):
        (shards / f"s-{i}.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"s-0\?\.tar holds no images: \S*s-08\.tar: the file is"):
        opened(f"{shards}/s-0?.tar")


def test_weights_are_those_of_their_source(folder, shards):
    tars = {"images": [str(shards), str(folder / "b.png")], "weight": 2.5}
    index = open_samples([tars, str(folder / "b.png")], role="training")
    assert index.weights.tolist() == [2.5, 2.5, 2.5, 2.5, 1.0]
    assert index.weights.dtype == "float32"
    twice = open_samples({"images": tars, "weight": 2}, role="training")
    assert twice.weights.tolist() == [5.0] * 4


@pytest.mark.parametrize("weight", [0, -1, "2", True, None, float("nan"), float("inf")])
def test_an_impossible_weight_is_named(folder, weight):
    with pytest.raises(ConfigError, match=f"a weight must be .* at most 1000, got {weight!r}"):
        opened([{"images": str(folder), "weight": weight}])


@pytest.mark.parametrize("item", [{"images": "x"}, {"image": "x", "weight": 1}, {}])
def test_a_weighted_source_has_two_keys(item):
    with pytest.raises(ConfigError, match="has the keys images and weight"):
        opened([item])


@pytest.fixture
def pack(tmp_path, write_tar) -> Path:
    """Hold what ``vqtrain pack`` writes: two shards to train on and one to validate on."""
    place = tmp_path / "pack"
    sides = {"train": ["train/shard-00000.tar", "train/shard-00001.tar"]}
    sides["val"] = ["val/shard-00000.tar"]
    for side, names in sides.items():
        (place / side).mkdir(parents=True)
        for name in names:
            tar = write_tar(place / name, {f"{name[:-4]}.png": b"x"})
            write_members(tar, offsets=[512], sizes=[1], keys=[name[:-4]])
    index = {side: {"shards": [{"name": name} for name in names]} for side, names in sides.items()}
    (place / "index.json").write_text(json.dumps({"format": "vqtrain-pack", **index}))
    return place


def upload(server, folder: Path) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            server.put(path.relative_to(folder.parent).as_posix(), path.read_bytes())
    return f"{server.url}/{folder.name}"


TRAIN = ["train/shard-00000", "train/shard-00001"]


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_packed_folder_opens_by_role(pack, ending):
    assert opened(f"{pack}{ending}") == TRAIN
    assert keys_of(open_samples(f"{pack}{ending}", role="validation")) == ["val/shard-00000"]


def test_a_packed_folder_brings_its_validation(pack):
    for train in (str(pack), [str(pack)]):
        training, validation = training_and_validation(train, "auto")
        assert (keys_of(training), keys_of(validation)) == (TRAIN, ["val/shard-00000"])


def test_a_packed_folder_without_validation(pack):
    index = json.loads((pack / "index.json").read_text())
    index["val"]["shards"] = []
    (pack / "index.json").write_text(json.dumps(index))
    training, validation = training_and_validation(str(pack), "auto")
    assert sorted(keys_of(training) + keys_of(validation)) == TRAIN
    with pytest.raises(DataError, match="pack is packed without images for validation"):
        open_samples(str(pack), role="validation")


def test_a_missing_shard_of_a_pack_is_an_error(pack):
    (pack / TRAIN[1]).with_suffix(".tar").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.tar does not exist"):
        opened(str(pack))


def test_a_packed_folder_on_a_server(pack, server):
    url = upload(server, pack)
    assert opened(url) == TRAIN
    training, validation = training_and_validation(url, "auto")
    assert (keys_of(training), keys_of(validation)) == (TRAIN, ["val/shard-00000"])
    assert training.read(0) == b"x"
    assert server.count("pack/train/shard-00000.members.npz") == 1


def test_http_sources(folder, shards, server):
    place = upload(server, shards)
    assert opened(f"{place}/s-{{08..10}}.tar") == ["08", "09", "10"]
    assert opened(f"{place}/s-09.tar?signature=a.b/c") == ["09"]
    photos = upload(server, folder)
    index = open_samples(f"{photos}/{{b.png,sub/c.webp}}", role="training")
    assert keys_of(index) == ["b", "c"]
    assert index.read(1) == b"sub/c.webp"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("s-11.tar", r"/s-11\.tar does not exist$"),
        ("*.tar", r"http cannot list files; write a brace list such as shard-"),
        ("", r"http cannot list files"),
    ],
)
def test_wrong_urls_are_explained(shards, server, wrong, message):
    place = upload(server, shards)
    with pytest.raises(DataError, match=message):
        opened(f"{place}/{wrong}")


def test_unknown_schemes_and_servers_are_named():
    with pytest.raises(
        DataError, match=r"ftp://x/a\.tar: URLs may begin with http://, https://, s3"
    ):
        opened("ftp://x/a.tar")
    with pytest.raises(
        DataError, match=r"cannot find the server of http://nowhere\.invalid/a\.tar"
    ):
        opened("http://nowhere.invalid/a.tar")


def test_s3_sources(folder, shards, pack, s3):
    for top in (folder, shards, pack):
        for path in top.rglob("*"):
            if path.is_file():
                s3(path.relative_to(top.parent).as_posix(), path.read_bytes())
    remote = open_samples("s3://photos/photos", role="training")
    assert (keys_of(remote), remote.others) == (["a", "b", "d", "sub/c"], {".txt": 1})
    assert opened("s3://photos/photos/*.png") == ["b"]
    assert opened("s3://photos/shards/s-{08..10}.tar") == ["08", "09", "10"]
    assert opened("s3://photos/sh*") == ["08", "09", "10"]
    assert opened("s3://photos/pack/") == TRAIN
    assert open_samples("s3://photos/photos/sub/c.webp", role="training").read(0) == b"sub/c.webp"
    with pytest.raises(DataError, match=r"s3://photos/x\.tar does not exist"):
        opened("s3://photos/x.tar")


def test_pipes_are_kept_and_read(shards):
    index = open_samples(f"pipe:cat {shards}/s-{{08..10}}.tar", role="validation")
    assert keys_of(index) == ["08", "09", "10"]
    assert index.read(0) == b"x"


def test_an_unfinished_pack_is_refused(tmp_path, write_tar, encode):
    (tmp_path / "pack/.pack").mkdir(parents=True)
    (tmp_path / "pack/train").mkdir()
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    write_tar(tmp_path / "pack/train/shard-00000.tar", {"a.png": encode(pixels)})
    with pytest.raises(DataError, match="pack is an unfinished pack: give the same vqtrain pack"):
        open_samples(str(tmp_path / "pack"), role="training")


@pytest.mark.parametrize("name", ["a.jpg", "a.tar"])
def test_a_named_pipe_is_no_picture(tmp_path, encode, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "b.png").write_bytes(encode(np.zeros((2, 2, 3), dtype=np.uint8)))
    index = open_samples(str(tmp_path), role="training")
    assert [index.key(i) for i in range(len(index))] == ["b"]
    if name == "a.jpg":
        (fault,) = index.faults
        assert fault.reason == "cannot read it: it is not a regular file"


@pytest.mark.parametrize(("media", "keys"), [(VIDEO, ["a", "b"]), (SOUND, ["c"])])
def test_media_decides_which_files_are_samples(tmp_path, media, keys):
    for name in ("a.mp4", "b.webm", "c.flac", "a.jpg", "d.npy"):
        (tmp_path / name).write_bytes(b"x")
    found = open_samples(str(tmp_path), media, role="training")
    assert [found.key(i) for i in range(len(found))] == keys
    assert found.media is media
    tar = tmp_path / "all.tar"
    with tarfile.open(tar, "w") as file:
        for name in ("a.mp4", "b.webm", "c.flac", "a.jpg", "d.npy"):
            file.add(tmp_path / name, name)
    weighted = [{media.key: str(tar), "weight": 2}]
    inside = open_samples(weighted, media, role="training")
    assert [inside.key(i) for i in range(len(inside))] == keys
    assert inside.weights.tolist() == [2.0] * len(keys)


def test_a_folder_without_samples_says_what_was_looked_for(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "b.txt").write_bytes(b"x")  # or it would be a folder of frames
    with pytest.raises(DataError, match=r"videos: .* holds no clips: .*\(\.avi .* \.webm\) and"):
        open_samples(str(tmp_path), VIDEO, role="training")


def test_a_pack_of_images_is_no_source_of_sounds(tmp_path):
    (tmp_path / "index.json").write_text('{"format": "vqtrain-pack"}')
    with pytest.raises(DataError, match="is a pack of image, and sounds are wanted here"):
        open_samples(str(tmp_path), SOUND, role="training")
