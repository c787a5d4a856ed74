"""Graphs of tokenizers of sounds, of torch.export and of ONNX."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.formats.onnx import runner, write
from vqtrain.formats.parts.agreement import Tolerance, compare
from vqtrain.formats.parts.graphs import trace

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.slow
@pytest.mark.parametrize("network", ["jukebox"])
def test_graphs_take_sounds_of_any_length(
    network: str, make_tokenizer: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("ema", network)
    hop = tokenizer.downsampling[0]
    sounds = [torch.rand(b, 3, n * hop) * 2 - 1 for b, n in ((3, 4), (1, 9))]
    assert len(tokenizer.encode(sounds[0]).unique()) > 1
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
        agreement = compare(tokenizer, sounds, tolerance=Tolerance(), **form)
        assert (agreement.images, agreement.other_ids) == (4, 0)
    with pytest.raises(Exception, match=r"cannot be reshaped|invalid dimensions"):
        written["encode"](sounds[0][..., 1:])
