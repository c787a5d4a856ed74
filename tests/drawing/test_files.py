"""What a browser plays, read again by PyAV and soundfile."""

import io
import sys

import numpy as np
import pytest
import torch

from vqtrain.drawing.files import to_mp4, to_wav
from vqtrain.errors import ConfigError


def test_clips_stand_side_by_side_in_an_mp4_of_even_sides() -> None:
    av = pytest.importorskip("av")
    ramp = torch.linspace(-1, 1, 5)[None, :, None, None].expand(3, 5, 15, 17)
    with av.open(io.BytesIO(to_mp4(ramp, -ramp, fps=12.5))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 12.5
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert frames.shape == (5, 16, 34, 3)
    levels = np.array([0, 64, 128, 191, 255])
    assert np.abs(frames[:, 8, 8, 0] - levels).max() <= 3
    assert np.abs(frames[:, 8, 25, 0] - levels[::-1]).max() <= 3


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r'clips need PyAV: pip install "vqtrain\[video\]"'):
        to_mp4(torch.zeros(3, 1, 16, 16), fps=None)


def test_a_sound_becomes_a_wav_of_16_bits() -> None:
    soundfile = pytest.importorskip("soundfile")
    sound = torch.tensor([[0.0, 0.25, -1.0, 2.0], [0.5, torch.nan, 1.0, -2.0]])
    values, rate = soundfile.read(io.BytesIO(to_wav(sound, 24_000)), dtype="int16")
    assert rate == 24_000
    assert values.T.tolist() == [[0, 8192, -32767, 32767], [16384, 0, 32767, -32767]]
