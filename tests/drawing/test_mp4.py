"""Frames of an mp4, read again by PyAV."""

import io
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from vqtrain.drawing.mp4 import encode_mp4

av = pytest.importorskip("av")


def test_frames_times_and_key_frames_are_those_asked_for() -> None:
    small = np.random.default_rng(0).integers(0, 256, (5, 2, 4, 3), dtype=np.uint8)
    frames = small.repeat(8, axis=1).repeat(8, axis=2)
    times = [0, 300, 400, 410, 800, 1700]
    encoded = encode_mp4(frames, times=times, tick=Fraction(1, 1000), crf=2, key_every=2)
    assert encoded == encode_mp4(
        iter(frames), times=times, tick=Fraction(1, 1000), crf=2, key_every=2
    )
    with av.open(io.BytesIO(encoded)) as container:
        track = container.streams.video[0]
        packets = [packet for packet in container.demux(track) if packet.size]
        assert sorted(p.pts * track.time_base * 1000 for p in packets) == times[:-1]
        last = max(packets, key=lambda packet: packet.pts)
        assert last.duration * track.time_base * 1000 == 900
        keys = [packet.is_keyframe for packet in packets]
        assert keys[0]
        assert all(map(any, pairwise(keys)))
        container.seek(0)
        for frame, expected in zip(container.decode(track), frames, strict=True):
            middle = frame.to_ndarray(format="rgb24")[4::8, 3::8].astype(int)
            assert np.abs(middle - expected[4::8, 3::8]).mean() < 12  # of colors at half the size
