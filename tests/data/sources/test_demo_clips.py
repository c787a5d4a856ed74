"""The demo's clips: what they show, that they move, and that they are read as they were made."""

from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.decoding.clips import ClipTransform
from vqtrain.data.media import VIDEO
from vqtrain.data.sources import demo_clips
from vqtrain.data.sources.demo import demo_shards
from vqtrain.data.sources.scan import scan_tar


def test_clips_move_and_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_clips, "COUNTS", {"training": 1, "validation": 2})
    made = dict(demo_clips.make_clips("validation"))
    # Photographs of which no part is trained on.
    assert list(made) == [*("chelsea-00", "chelsea-01", "motorcycle_left-00", "motorcycle_left-01")]
    for clip in made.values():
        assert clip.shape == (17, 64, 64, 3)
        changes = np.abs(np.diff(clip.astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert changes.min() > 1

    index = scan_tar(Path(demo_shards("validation", VIDEO)[0]), VIDEO)
    transform = ClipTransform(
        image_size=64,
        channels=3,
        crop="native",
        flip=False,
        range=None,
        background="white",
        frames=17,
        fps=float(demo_clips.FPS),
        stride=1,
    )
    assert [index.key(i) for i in range(len(index))] == list(made)
    for number, clip in enumerate(made.values()):
        read = transform.decode(index.read(number), None).permute(1, 2, 3, 0).numpy()
        assert np.abs(read.astype(int) - clip).mean() < 5  # of colors at half the size
    training = scan_tar(Path(demo_shards("training", VIDEO)[0]), VIDEO)
    assert len(training) == len(demo_clips.TRAINING)
