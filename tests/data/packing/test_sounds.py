"""Packs of sounds: kept as they are, or as FLAC that holds the same samples."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vqtrain.data.decoding.sounds import SoundTransform
from vqtrain.data.media import SOUND
from vqtrain.data.packing.pack import pack
from vqtrain.data.packing.sounds import SoundPack
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import ConfigError

NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, (4800, 2))


def write(path: Path, values: np.ndarray, rate: int, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, **options)
    path.write_bytes(file.getvalue())
    return file.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> dict[str, bytes]:
    """Four sounds, one of them with a text, and two that are none."""
    folder = tmp_path / "source"
    folder.mkdir()
    contents = {
        "a.wav": write(folder / "a.wav", NOISE, 48000, format="WAV", subtype="PCM_16"),
        "b.wav": write(folder / "b.wav", NOISE[:, 0], 8000, format="WAV", subtype="FLOAT"),
        "c.flac": write(folder / "c.flac", NOISE[:, 0], 16000, format="FLAC", subtype="PCM_16"),
        "d.ogg": write(folder / "d.ogg", NOISE, 16000, format="OGG", subtype="VORBIS"),
    }
    (folder / "a.txt").write_text("a noise")
    (folder / "text.wav").write_text("no sound")
    (folder / "cut.wav").write_bytes(contents["a.wav"][:5000])
    return contents


def packed(tmp_path: Path, **settings: object) -> tuple[dict[str, bytes], dict]:
    given = {"format": "keep", "sample_rate": None, "shard_size": 1.0, "val": 0.0, **settings}
    report = pack(
        open_samples(str(tmp_path / "source"), SOUND, role="training"),
        out=tmp_path / "out",
        settings=SoundPack(**given),
        num_workers=0,
        progress=lambda *_: None,
    )
    with tarfile.open(tmp_path / "out/train/shard-00000.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}, report


def test_sounds_are_kept_as_they_are_and_faults_are_listed(tmp_path, source):
    members, report = packed(tmp_path)
    assert members == {**source, "a.txt": b"a noise"}
    assert report["media"] == "sound"
    (shard,) = report["train"]["shards"]
    assert shard["sizes"] == {"smallest": "0.100 s", "median": "0.300 s", "largest": "0.600 s"}
    assert shard["modes"] == {
        "16000 Hz mono PCM_16": 1,
        "16000 Hz stereo VORBIS": 1,
        "48000 Hz stereo PCM_16": 1,
        "8000 Hz mono FLOAT": 1,
    }
    assert {fault["key"]: fault["reason"] for fault in report["skipped"]} == {
        "text": "no wav, flac, ogg or mp3",
        "cut": "it is cut off: 4956 of 19200 bytes of its samples are there",
    }
    index = open_samples(str(tmp_path / "out"), SOUND, role="training")
    kept = {index.key(i): index.read(i) for i in range(len(index))}
    assert kept == {name.split(".")[0]: content for name, content in source.items()}


def test_flac_holds_the_samples_of_what_it_encodes(tmp_path, source):
    members, _ = packed(tmp_path, format="flac")
    assert set(members) == {"a.flac", "a.txt", "b.flac", "c.flac", "d.flac"}
    assert members["c.flac"] == source["c.flac"]
    for name, subtype in [("a.wav", "PCM_16"), ("b.wav", "PCM_24"), ("d.ogg", "PCM_16")]:
        values, rate = soundfile.read(io.BytesIO(source[name]), always_2d=True)
        with soundfile.SoundFile(io.BytesIO(members[f"{name[0]}.flac"])) as file:
            assert (file.samplerate, file.channels) == (rate, values.shape[1])
            assert file.subtype == subtype
            errors = np.abs(file.read(always_2d=True) - values)
        # A 16-bit file is the same; others are rounded to the nearest step.
        steps = {"a.wav": 0, "b.wav": 0.5 / 2**23, "d.ogg": 0.5 / 2**15}
        assert errors.max() <= steps[name]


def test_another_rate_is_that_of_decoding(tmp_path, source):
    members, _ = packed(tmp_path, format="flac", sample_rate=16000)
    assert members["c.flac"] == source["c.flac"]
    at_rate = SoundTransform(sample_rate=16000, channels=2, length=1600)
    values, rate = soundfile.read(io.BytesIO(members["a.flac"]))
    assert (rate, len(values)) == (16000, 1600)
    expected = at_rate.decode_whole(source["a.wav"]).numpy().T
    assert np.abs(values - expected).max() <= 0.5 / 2**15 + 1e-9


def test_a_rate_needs_encoding():
    with pytest.raises(ConfigError, match="sample_rate=8000 needs format=flac, which encodes"):
        SoundPack(format="keep", sample_rate=8000, shard_size=1.0, val=0.0)
