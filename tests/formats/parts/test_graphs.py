"""Graphs of tokenizers of sounds and clips, of torch.export and of ONNX."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.formats.parts.agreement import Tolerance, compare
from vqtrain.formats.parts.graphs import trace
from vqtrain.formats.parts.onnx_graphs import runner, write

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


@pytest.mark.slow
def test_a_graph_of_patches_of_clips_takes_clips_of_its_size(tmp_path: Path) -> None:
    sizes = {"sample_size": (4, 16, 24), "patch_size": [2, 8, 8], "dim": 16, "depth": 1}
    sizes |= {"num_heads": 1, "head_dim": None, "mlp_dim": None, "activation": "gelu"}
    sizes |= {"qkv_bias": True, "pre_norm": False, "positions": "rope_3d"}
    tokenizer = Tokenizer(
        encoder={"kind": "vit", "arguments": {"in_channels": 3, **sizes}},
        codebook={"kind": "fsq", "arguments": {"size": 64, "levels": None, "eps": 1e-3}},
        decoder={"kind": "vit", "arguments": {"out_channels": 3, "head": "linear", **sizes}},
        channels=3,
    ).eval()
    clips = torch.rand(3, 3, 4, 16, 24) * 2 - 1
    token_ids = tokenizer.encode(clips)
    assert token_ids.shape == (3, 2, 2, 3)
    assert len(token_ids.unique()) > 4
    programs = trace(tokenizer.folded(), refuses=True)
    assert programs.encoder.module()(clips).equal(token_ids)
    torch.testing.assert_close(programs.decoder.module()(token_ids), tokenizer.decode(token_ids))
    write(programs.encoder, tmp_path / "encode.onnx", given="samples", got="token_ids")
    assert runner(tmp_path / "encode.onnx")(clips).equal(token_ids)
