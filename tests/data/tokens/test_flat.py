"""One array for all: what language-model trainers read."""

import json

import numpy as np
import pytest

from vqtrain.data.shards import folder
from vqtrain.data.sources.scan import scan_tar
from vqtrain.data.tokens import flat


def test_numpy_maps_the_array_and_a_line_tells_of_each_row(
    index_of, plan_of, written, expected, tmp_path
):
    report = written(plan_of(index_of(5), layout="flat"), tmp_path / "out")
    array = np.load(tmp_path / "out/tokens.npy", mmap_mode="r")
    np.testing.assert_array_equal(array, np.stack(expected(5)))
    assert array.dtype == np.uint16
    lines = (tmp_path / "out/samples.jsonl").read_text().splitlines()
    good = [i for i in range(10) if i != 5]
    assert list(map(json.loads, lines)) == [
        {"key": f"{i:03d}", "fields": {"txt": f"caption {i}"}} for i in good
    ]
    assert [entry["name"] for entry in report["files"]] == ["tokens.npy", "samples.jsonl"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.json",
        "tokens.npy",
        "samples.jsonl",
    }


def test_fields_that_are_no_text_are_left_out_of_the_lines(
    tmp_path, encode, write_tar, plan_of, written, pixels
):
    members = {"a.png": encode(pixels[0]), "a.txt": b"caf\xc3\xa9", "a.bin": b"\xff\xfe"}
    index = scan_tar(write_tar(tmp_path / "a.tar", members))
    written(plan_of(index, layout="flat"), tmp_path / "out")
    (line,) = (tmp_path / "out/samples.jsonl").read_text().splitlines()
    assert json.loads(line) == {"key": "a", "fields": {"txt": "caf\u00e9"}}


def test_a_kill_while_the_array_is_made_costs_that_alone(
    index_of, plan_of, written, stopping, content_of, tmp_path, monkeypatch
):
    plan = plan_of(index_of(), layout="flat")
    written(plan, tmp_path / "unbroken")
    describe, calls = flat._describe, []

    def stop(sample):
        calls.append(sample)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return describe(sample)

    with monkeypatch.context() as patched:
        patched.setattr(flat, "_describe", stop)
        with pytest.raises(KeyboardInterrupt):
            written(plan, tmp_path / "out")
    assert not (tmp_path / "out/tokens.npy").exists()
    written(plan, tmp_path / "out", encode=stopping(0))
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def test_a_kill_before_the_index_costs_nothing(
    index_of, plan_of, written, stopping, content_of, tmp_path, monkeypatch
):
    plan = plan_of(index_of(), layout="flat")
    written(plan, tmp_path / "unbroken")
    whole = folder.write_whole

    def stop(path, content):
        if path.name == "index.json":
            raise KeyboardInterrupt
        whole(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_whole", stop)
        with pytest.raises(KeyboardInterrupt):
            written(plan, tmp_path / "out")
    written(plan, tmp_path / "out", encode=stopping(0))
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")
