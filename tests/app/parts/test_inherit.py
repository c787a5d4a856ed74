"""What a run inherits from the tokenizer in ``init_from``, and what its screen says of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.settings import Settings
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.training.module import TokenizerTraining

NETWORK: dict[str, Any] = {"channels": 8, "block_channels": 2, "num_blocks": 0}
PARTS = {
    "encoder": {
        "kind": "vqvae",
        "arguments": {"in_channels": 1, "num_downsamplings": 1, **NETWORK},
    },
    "codebook": {"kind": "fsq", "arguments": {"size": None, "levels": [3, 5], "eps": 1e-3}},
    "decoder": {
        "kind": "vqvae",
        "arguments": {"out_channels": 1, "num_upsamplings": 1, **NETWORK},
    },
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    tokenizer = Tokenizer(**PARTS, channels=1, pixel_range=(0.0, 10.0))  # type: ignore[arg-type]  # plain data
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def composed(*words: str) -> dict[str, Any]:
    return compose("train", read_command_line(words))


def begun(init_from: Path, *words: str) -> tuple[TokenizerTraining, list[str]]:
    """Build the module of a run, and give it the weights."""
    config = composed(f"init_from={init_from}", "trainer.accelerator=cpu", *words)
    module = build_module(config, Settings.of(config))
    return module, begin(module, config)


def test_parts_and_samples_are_inherited_whatever_an_experiment_says(saved: Path) -> None:
    config = composed(f"init_from={saved}", "experiment=demo")
    assert config["encoder"] == {"kind": "vqvae", "num_downsamplings": 1, **NETWORK}
    assert config["codebook"] == {"kind": "fsq", "size": None, "levels": [3, 5], "eps": 1e-3}
    assert (config["data"]["channels"], config["data"]["range"]) == (1, [0.0, 10.0])
    assert config["optim"]["lr"] == 1e-3  # of the experiment


def test_keys_that_are_typed_say_otherwise(saved: Path) -> None:
    words = ["codebook.levels=[7]", "decoder.num_blocks=1", "data.channels=3"]
    config = composed(*words, f"init_from={saved}")
    assert config["codebook"]["levels"] == [7]
    assert config["decoder"] == {"kind": "vqvae", "num_upsamplings": 1, **NETWORK, "num_blocks": 1}
    assert (config["data"]["channels"], config["data"]["range"]) == (3, [0.0, 10.0])
    assert composed("codebook=vq", f"init_from={saved}")["codebook"]["kind"] == "vq"
    with pytest.raises(ConfigError, match=r"'codebook.restart_below'"):
        composed("codebook.restart_below=0", f"init_from={saved}")


def test_all_weights_are_taken_over(saved: Path) -> None:
    module, lines = begun(saved)
    own, given = module.tokenizer.state_dict(), Tokenizer.from_pretrained(saved).state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in given.items())
    assert lines == [
        f"init_from: {len(given)} tensors of decoder, encoder, project_in and project_out loaded"
    ]
    assert not module.codebook_is_new


def test_what_is_new_and_what_was_left_is_counted(saved: Path) -> None:
    module, lines = begun(saved, "codebook=vq", "codebook.dim=4", "codebook.size=16")
    assert module.codebook_is_new
    assert torch.equal(
        module.tokenizer.encoder.state_dict()["layers.0.weight"],
        Tokenizer.from_pretrained(saved).encoder.state_dict()["layers.0.weight"],
    )
    assert lines[1:] == [
        "init_from: 5 tensors of codebook, project_in and project_out new",
        "init_from: 3 tensors of project_in and project_out left",
    ]
    module.tokenizer.save_pretrained(saved.parent / "vq")
    # A codebook is taken as a whole: of ema, there are the codes alone.
    ema, lines = begun(saved.parent / "vq", "codebook=ema", "codebook.dim=4", "codebook.size=16")
    assert ema.codebook_is_new
    assert "of codebook new" in lines[1]
    assert lines[2] == "init_from: 2 tensors of codebook left"


def test_a_tokenizer_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="init_from: no tokenizer at /nowhere"):
        composed("init_from=/nowhere")
