"""Images that are not 0 to 255: trained on, and given back in their own units."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.cli import main
from vqtrain.tokenizer.model import Tokenizer


def write_arrays(folder: Path) -> np.ndarray:
    """Write arrays of five channels, as of a satellite; return one of them."""
    values = np.random.default_rng(0).uniform(-1000, 3000, (20, 24, 20, 5)).astype(np.float32)
    for number, array in enumerate(values):
        np.save(folder / f"{number:02d}.npy", array)
    return values[0]


def write_deep_gray(folder: Path) -> np.ndarray:
    """Write 16-bit PNGs; return one of them."""
    values = np.random.default_rng(0).integers(0, 65_536, (20, 24, 20)).astype(np.uint16)
    for number, array in enumerate(values):
        Image.fromarray(array).save(folder / f"{number:02d}.png")
    return values[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "channels", "low", "high"),
    [(write_arrays, 5, -1000.0, 3000.0), (write_deep_gray, 1, 0.0, 65_535.0)],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_range_goes_round(
    write: object, channels: int, low: float, high: float, tiny: list[str], tmp_path: Path
) -> None:
    folder, run = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    array = write(folder)  # type: ignore[operator]  # a function of this file
    words = [*tiny, f"data.train={folder}", f"data.channels={channels}", "trainer.max_steps=2"]
    assert main(["train", *words, f"data.range=[{low},{high}]", f"run_dir={run}"]) == 0
    measured = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 5 < measured["val/psnr"] < 30  # in 8 bits of the range; noise is far from exact
    assert not (run / "bad_samples.jsonl").exists()

    tokenizer = Tokenizer.from_pretrained(run)
    images = tokenizer.preprocess(array)
    expected = torch.from_numpy(array.astype(np.float64)).reshape(24, 20, channels).permute(2, 0, 1)
    assert torch.allclose(images[0].double(), (expected - low) / (high - low) * 2 - 1, atol=1e-6)
    back = tokenizer.to_pixels(images)
    assert back.dtype == torch.float32
    assert torch.allclose(back[0].double(), expected, atol=1e-6 * (high - low))
    made = tokenizer.to_pixels(tokenizer.decode(tokenizer.encode(images)))
    assert made.shape == images.shape
    assert low <= made.min() < made.max() <= high
