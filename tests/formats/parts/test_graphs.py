"""Graphs of tokenizers of sounds and clips, of torch.export and of ONNX."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.formats.onnx import runner, write
from vqtrain.formats.parts.agreement import Tolerance, compare
from vqtrain.formats.parts.graphs import trace

pytestmark = pytest.mark.usefixtures("unchecked")
OTHERS = ["jukebox", "seanet", "videogpt"]  # networks of other samples than images


@pytest.mark.slow
@pytest.mark.parametrize("network", OTHERS)
def test_graphs_take_sounds_and_clips_of_any_size(
    network: str, make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("ema", network)
    axes = len(tokenizer.downsampling)
    samples = [
        torch.rand(b, 3, *tokenizer.encoder.size(grid[:axes])) * 2 - 1
        for b, grid in ((3, (4, 3, 2)), (1, (9, 2, 5)))
    ]
    assert len(tokenizer.encode(samples[0]).unique()) > 1
    programs, loaded, written = trace(tokenizer.folded(), refuses=True), {}, {}
    for name, program, names in (
        ("encode", programs.encoder, {"given": "samples", "got": "token_ids"}),
        ("decode", programs.decoder, {"given": "token_ids", "got": "samples"}),
    ):
        torch.export.save(program, tmp_path / f"{name}.pt2")
        loaded[name] = torch.export.load(tmp_path / f"{name}.pt2").module()
        write(program, tmp_path / f"{name}.onnx", **names)
        written[name] = runner(tmp_path / f"{name}.onnx")
    for form in (loaded, written):
        agreement = compare(tokenizer, samples, tolerance=Tolerance(), **form)
        assert (agreement.images, agreement.other_ids) == (4, 0)
    with pytest.raises(Exception, match=r"cannot be reshaped|invalid dimensions"):
        written["encode"](samples[0][:, :, 1:])
