"""Every form of IMAGES that is on this machine, and every way to get it wrong."""

import os
from pathlib import Path

import pytest

from vqtrain.data import sources
from vqtrain.data.index import ImageIndex
from vqtrain.data.sources import expand_braces, open_images, training_and_validation
from vqtrain.errors import DataError


def keys_of(index: ImageIndex) -> list[str]:
    return [index.key(i) for i in range(len(index))]


def opened(images: object) -> list[str]:
    return keys_of(open_images(images, role="training"))


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
    monkeypatch.setattr(sources, "demo_shards", lambda role: [str(tmp_path / f"{role}.tar")])


def test_a_folder_is_searched_and_sorted(folder):
    assert opened(str(folder)) == ["a", "b", "d", "sub/c"]
    assert opened(f"{folder}/") == ["a", "b", "d", "sub/c"]
    assert open_images(str(folder), role="training").read(3) == b"sub/c.webp"


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
    assert opened(str(shards)) == ["a"]


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
    tar = open_images("s-*8.tar", role="training")
    monkeypatch.chdir(folder)
    assert tar.read(0) == b"x"
    assert opened("*.png") == ["b"]
    assert opened(".") == ["a", "b", "d", "sub/c"]
    index = open_images("sub", role="training")
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
    index = open_images(str(tmp_path), role="training")
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


@pytest.mark.parametrize("scheme", ["http://", "https://", "s3://", "gs://", "hf://", "pipe:"])
def test_what_is_not_local_is_refused(scheme):
    with pytest.raises(DataError, match=r"x/\{0\.\.9\}\.tar .* reads local files only"):
        opened(f"{scheme}x/{{0..9}}.tar")


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
        ("photos/notes.txt", r"notes\.txt is neither a tar nor a picture: .*\.jpg"),
        ("photos/*.txt", r"photos/\*\.txt holds no images: looked for tars and pictures .*\.jpg"),
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
    with pytest.raises(DataError, match="no images are named"):
        opened(images)


@pytest.mark.usefixtures("tiny_demo")
def test_demo_follows_the_role():
    assert keys_of(open_images("demo", role="training")) == ["training"]
    assert keys_of(open_images("demo", role="validation")) == ["validation"]


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
