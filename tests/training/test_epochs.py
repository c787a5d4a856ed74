"""Over ranks, workers and ways to start them: every sample once an epoch, and in validation."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.loading.order import EndlessOrder

# Of each media: samples of one value, their number, and the settings that give it back.
IMAGES = """
from PIL import Image
from vqtrain.data.settings.image import ImageData

suffix, scale = "png", 1
settings = ImageData(
    train="-", val="-", image_size=8, channels=3, crop="native", flip=False, batch_size=2,
    num_workers=WORKERS, sampling="permuted", range=None, background="white",
    max_bad_fraction=0.01,
)

def encode(key, file):
    Image.new("RGB", (8, 8), (key, 2 * key, 3 * key)).save(file, "PNG")
"""
SOUNDS = """
import numpy as np
import soundfile
from vqtrain.data.settings.sound import SoundData

suffix, scale = "wav", 32
settings = SoundData(
    train="-", val="-", sample_rate=8000, length=50, channels=1, batch_size=2,
    num_workers=WORKERS, sampling="permuted", max_bad_fraction=0.01,
)

def encode(key, file):
    soundfile.write(file, np.full(100, key / scale), 8000, format="WAV", subtype="FLOAT")
"""
CLIPS = """
import numpy as np
from fractions import Fraction
from vqtrain.data.settings.video import VideoData
from vqtrain.drawing.mp4 import encode_mp4

suffix, scale = "mp4", 1 / 8
settings = VideoData(
    train="-", val="-", image_size=8, frames=2, fps=None, stride=1, channels=3, crop="native",
    flip=False, background="white", frames_per_loss=None, batch_size=2, num_workers=WORKERS,
    sampling="permuted", max_bad_fraction=0.01,
)

def encode(key, file):
    frames = np.full((4, 8, 8, 3), 8 * key, np.uint8)
    file.write(encode_mp4(frames, times=range(5), tick=Fraction(1, 8), crf=0))
"""
# 30 of them in four shards of which one holds 24; batches of 2.
SCRIPT = """
import io, json, multiprocessing, tarfile
from itertools import islice
from pathlib import Path
import numpy as np
from vqtrain.data.sources.find import open_samples

def write(path, keys):
    with tarfile.open(path, "w") as tar:
        for key in keys:
            encoded = io.BytesIO()
            encode(key, encoded)
            member = tarfile.TarInfo(f"{key:03d}.{suffix}")
            member.size = encoded.tell()
            encoded.seek(0)
            tar.addfile(member, encoded)

def main():
    from vqtrain.training.data_module import TrainingData  # Lightning: not in the workers
    multiprocessing.set_start_method(START)
    shards = Path(folder) / f"shards-{rank}"
    shards.mkdir()
    write(shards / "0.tar", range(24)); write(shards / "1.tar", range(24, 27))
    write(shards / "2.tar", range(27, 29)); write(shards / "3.tar", range(29, 30))
    index = open_samples(str(shards), settings.media, role="training")
    data = TrainingData(
        training=index, validation=index, settings=settings, seed=5, start=0, num_nodes=1,
    )
    batches = islice(data.train_dataloader(), 60 // world_size)  # 4 epochs of 30
    trained = [
        [batch.keys, (batch.samples.flatten(1)[:, 0] * scale).double().round().tolist()]
        for batch in batches
    ]
    counted = [
        key for batch in data.validation_batches()
        for key, is_counted in zip(batch.keys, batch.mask.tolist()) if is_counted
    ]
    (Path(folder) / f"{rank}.json").write_text(json.dumps([trained, counted]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("media", "ranks", "workers", "start"),
    [
        (IMAGES, 1, 2, "spawn"),
        (IMAGES, 2, 2, "fork"),
        (IMAGES, 3, 0, "spawn"),
        (IMAGES, 3, 2, "fork"),
        (CLIPS, 2, 2, "fork"),
        (SOUNDS, 2, 2, "fork"),
    ],
    ids=["images-1-2", "images-2-2", "images-3-0", "images-3-2", "clips-2-2", "sounds-2-2"],
)
def test_every_sample_comes_once_an_epoch_in_the_same_order(
    media: str, ranks: int, workers: int, start: str, run_ranks: Callable[[str, int], Path]
) -> None:
    script = (media + SCRIPT).replace("START", repr(start)).replace("WORKERS", str(workers))
    folder = run_ranks(script, ranks)
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    rows = zip(*(trained for trained, _ in results), strict=True)
    batches = [batch for row in rows for batch in row]
    assert all([int(key) for key in keys] == values for keys, values in batches)
    trained = [int(key) for keys, _ in batches for key in keys]
    epochs = [trained[first : first + 30] for first in range(0, 120, 30)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # The order of one process; of so few samples all are one block, whatever their sizes are.
    order = EndlessOrder(
        sizes=np.full(30, 100), weights=np.ones(30, np.float32), seed=5, sampling="permuted"
    )
    assert trained == order.samples(0, 120)[2].tolist()
    counted = sorted(int(key) for _, keys in results for key in keys)
    assert counted == list(range(30))
