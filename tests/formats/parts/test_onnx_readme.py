"""The page of graphs of clips and sounds: its lines run, on the tokenizer instead of graphs."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.formats.parts.onnx_readme import readme


class Session:
    """A graph of onnxruntime, computed by a tokenizer."""

    tokenizer: Tokenizer

    def __init__(self, file: str, providers: list[str]) -> None:
        assert providers == ["CPUExecutionProvider"]
        self.run_graph = getattr(self.tokenizer, file.removesuffix("r.onnx"))  # encode or decode

    def run(self, names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run it on its one input."""
        del names
        ((name, array),) = given.items()
        assert name in ("clips", "sounds", "token_ids")
        return [self.run_graph(torch.from_numpy(array)).numpy()]


def run_page(tokenizer: Tokenizer, page: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run the lines of a page."""
    monkeypatch.setattr(Session, "tokenizer", tokenizer, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    found: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], found)
    return found


def test_frames_become_ids_and_pixels(
    clip_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(0).integers(0, 256, (4, 16, 20, 3), dtype=np.uint8)
    np.save("frames.npy", array)
    tokenizer = Tokenizer.from_pretrained(clip_tokenizer)
    page = readme(tokenizer)
    assert "`clips`: float32 [batch, 3, frames, height, width]" in page
    assert "[batch, frames/2, height/4, width/4] in 0..63" in page
    assert "preprocess" not in page
    found = run_page(tokenizer, page, monkeypatch)
    token_ids = tokenizer.encode(tokenizer.preprocess(array))
    assert np.array_equal(found["token_ids"], token_ids)
    pixels = tokenizer.to_pixels(tokenizer.decode(token_ids))[0].permute(1, 2, 3, 0)
    assert np.array_equal(found["pixels"], pixels)
    # Of a causal network the first frame is a token by itself.
    monkeypatch.setattr(
        type(tokenizer.encoder), "size", lambda _, grid: (2 * grid[0] - 1, 4 * grid[1], 4 * grid[2])
    )
    page = readme(tokenizer)
    assert "[batch, (frames+1)/2, height/4, width/4]" in page
    assert "frames is 1 more than a multiple of 2, height of 4, width of 4." in page


def test_values_become_ids_and_values(
    sound_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(0).uniform(-1, 1, (1, 800))
    np.save("sound.npy", array)
    tokenizer = Tokenizer.from_pretrained(sound_tokenizer)
    page = readme(tokenizer)
    assert "[batch, 2, length/4] in 0..63\n\nAny batch; length is a multiple of 4." in page
    found = run_page(tokenizer, page, monkeypatch)
    token_ids = tokenizer.encode(tokenizer.preprocess(array))
    assert np.array_equal(found["token_ids"], token_ids)
    assert np.array_equal(found["values"], tokenizer.decode(token_ids)[0])
