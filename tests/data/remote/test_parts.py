"""Parts of remote files on the disk, and how large they may grow together."""

import os
import time

import pytest

from vqtrain.data.remote import parts as module
from vqtrain.data.remote.parts import Part, keeps_parts, parts_limit
from vqtrain.errors import DataError


@pytest.mark.parametrize(("text", "expected"), [("", 50e9), ("2", 2e9), ("0.5", 5e8), ("0", 0)])
def test_the_limit_is_a_variable(monkeypatch, text, expected):
    monkeypatch.setenv("VQTRAIN_CACHE_GB", text)
    assert parts_limit() == expected
    assert keeps_parts() is (expected > 0)


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_an_impossible_limit_is_named(monkeypatch, text):
    monkeypatch.setenv("VQTRAIN_CACHE_GB", text)
    with pytest.raises(DataError, match=f"VQTRAIN_CACHE_GB must be a number .* got '{text}'"):
        parts_limit()


def test_a_part_is_kept_whole_or_not_at_all(cache):
    part = Part("a", number=0, size=4)
    assert part.load(0, 4) is None
    part.store(b"abcd")
    assert part.load(1, 3) == b"bc"
    assert part.is_here()
    assert not Part("b", number=0, size=4).is_here()
    assert not Part("a", number=1, size=4).is_here()
    assert not Part("a", number=0, size=5).is_here()
    with part.fetching():
        pass
    assert len(list((cache / "parts" / "locks").iterdir())) == 1


def test_above_the_limit_what_was_unused_for_longest_goes(monkeypatch):
    monkeypatch.setenv("VQTRAIN_CACHE_GB", "0.00000045")  # 450 bytes: 4 parts, and 4 after a trim
    monkeypatch.setattr(module, "PARTS_BETWEEN_TRIMS", 1)
    monkeypatch.setattr(module, "USED_AGAIN_S", 10.0)
    parts = [Part("a", number=i, size=100) for i in range(6)]
    for i, part in enumerate(parts[:4]):
        part.store(b"x" * 100)
        os.utime(part._path, (time.time() - 1000 + i,) * 2)
    assert parts[0].is_here()  # used again: now the newest
    for part in parts[4:]:
        part.store(b"x" * 100)
    # Each of the last two makes 500 bytes, of which 405 may stay: the oldest one goes.
    assert [part.is_here() for part in parts] == [True, False, False, True, True, True]


def test_a_full_disk_switches_keeping_off_for_a_while(monkeypatch):
    def fail(*_arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "write_whole", fail)
    Part("a", number=0, size=1).store(b"x")
    assert not keeps_parts()
    monkeypatch.setattr(module._State, "paused_until_s", time.monotonic() - 1)
    assert keeps_parts()
