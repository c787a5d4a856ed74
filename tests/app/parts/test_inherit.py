"""What a run inherits from the tokenizer in ``init_from``, and what its screen says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.settings import Settings
from vqtrain.cli import main
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


def test_clips_and_sounds_inherit_channels_and_have_no_range(saved: Path) -> None:
    for word in ("video", "sound"):
        data = composed(f"init_from={saved}", f"data={word}")["data"]
        assert data["channels"] == 1
        assert "range" not in data


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


def test_parts_alone_are_taken_over_with_what_connects_them(saved: Path) -> None:
    words = ["encoder.channels=8", "decoder.channels=8", "init_parts=[encoder]"]
    assert composed(f"init_from={saved}", *words)["encoder"]["num_downsamplings"] == 1
    assert composed(f"init_from={saved}", *words)["decoder"]["num_upsamplings"] == 2
    assert composed(f"init_from={saved}", *words)["codebook"]["kind"] == "ema"
    words = ["init_parts=[encoder,codebook]", "decoder.num_upsamplings=1", "decoder.channels=8"]
    module, lines = begun(saved, *words, "decoder.block_channels=2", "decoder.num_blocks=0")
    assert not module.codebook_is_new
    given = Tokenizer.from_pretrained(saved).state_dict()
    own = module.tokenizer.state_dict()
    equal = {n.partition(".")[0] for n in own if torch.equal(own[n], given[n])}
    assert {"encoder", "project_in"} <= equal
    assert not torch.equal(own["decoder.layers.0.weight"], given["decoder.layers.0.weight"])
    assert "of encoder and project_in loaded" in lines[0]
    with pytest.raises(ConfigError, match=r"init_parts must be .* one of encoder, codebook"):
        composed(f"init_from={saved}", "init_parts=[head]")


@pytest.fixture
def grown_from(tmp_path: Path) -> Callable[..., Path]:
    """Save a tokenizer with 8 codes of a kind."""

    def make(*words: str) -> Path:
        config = composed(*TINY, "codebook.size=8", "trainer.accelerator=cpu", *words)
        folder = tmp_path / "few"
        tokenizer = build_module(config, Settings.of(config)).tokenizer
        with torch.no_grad():
            tokenizer.codebook.initialize(tokenizer.latents(torch.rand(8, 3, 32, 32) * 2 - 1))
        tokenizer.save_pretrained(folder)
        return folder

    return make


TINY = ["encoder.channels=8", "decoder.channels=8", "encoder.num_blocks=0", "decoder.num_blocks=0"]
GROW = ["codebook.size=40", "codebook.grow_from=8"]


@pytest.mark.parametrize(
    "words",
    [
        ["codebook=vq"],
        ["codebook=ema"],
        ["codebook=ema", "codebook.l2_normalize=true"],
        ["codebook=residual", "codebook.num_codebooks=2"],
        ["codebook=grouped", "codebook.num_codebooks=2"],
    ],
    ids=str,
)
def test_a_codebook_grows_without_changing_an_id(
    words: list[str], grown_from: Callable[..., Path]
) -> None:
    few = grown_from(*words)
    module, lines = begun(few, *GROW)
    assert lines[0] == "init_from: the codebook grows from 8 to 40 codes"
    assert not module.codebook_is_new
    old, new = Tokenizer.from_pretrained(few), module.tokenizer.eval()
    assert torch.equal(new.codebook_vectors[..., :8, :], old.codebook_vectors)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    assert len(old.encode(images).unique()) > 1
    assert torch.equal(new.encode(images), old.encode(images))
    codebook = new.codebook.train()
    z = torch.randn(16, codebook.in_channels, 8, 8)
    for step in range(3):  # the first restarts bring the new codes to the latents
        codebook.begin_step(step, seed=0)
        codebook(z)
        codebook.update(step)
    assert codebook.eval()(z).token_ids.unique().numel() > 30


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (["codebook=ema"], ["codebook.size=40", "codebook.grow_from=4"], "it must be 8, the codes"),
        (["codebook=ema"], ["codebook.grow_from=8"], "codebook.size more than that; got 8 and 8"),
        (["codebook=ema"], ["codebook=vq", *GROW], "of the kind that it grows from, ema, got vq"),
        (["codebook=ema"], ["encoder.channels=16", *GROW], "only behind the encoder of init_from"),
        (["codebook=ibq"], GROW, "this codebook cannot grow without changing ids"),
        (["codebook=simvq"], GROW, "this codebook cannot grow without changing ids"),
        (["codebook=vq", "codebook.l2_normalize=true"], GROW, "leaves no direction far"),
        (["codebook=ema", "codebook.restart_below=0"], GROW, "never brings the new codes into"),
    ],
)
def test_what_cannot_grow_is_refused(
    first: list[str], then: list[str], message: str, grown_from: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match=f"codebook.grow_from.*{message}"):
        begun(grown_from(*first), *then)


@pytest.mark.parametrize(
    "word", ["codebook.grow_from=8", "init_parts=[encoder]", "init_from_discriminator=true"]
)
def test_what_init_from_is_to_give_needs_one(word: str) -> None:
    config = composed(*TINY, word, "trainer.accelerator=cpu")
    with pytest.raises(ConfigError, match=r"there is no init_from"):
        begin(build_module(config, Settings.of(config)), config)


def test_frozen_parts_that_nothing_was_loaded_for_are_named(saved: Path) -> None:
    freeze = "trainer.freeze=[encoder,codebook]"
    assert "warning" not in str(begun(saved, freeze)[1])
    lines = begun(saved, freeze, "codebook=vq", "codebook.dim=4", "codebook.size=16")[1]
    assert lines[-1].startswith(
        "warning: trainer.freeze keeps 4 tensors of codebook and project_in"
    )
    config = composed(*TINY, "trainer.freeze=[encoder]", "trainer.accelerator=cpu")
    (line,) = begin(build_module(config, Settings.of(config)), config)
    assert line.startswith("warning: trainer.freeze keeps 6 tensors of encoder at their first")


def test_a_frozen_codebook_that_nothing_trains_is_as_good_as_loaded(saved: Path) -> None:
    kl = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1.0}}
    Tokenizer(**{**PARTS, "codebook": kl}, channels=1).save_pretrained(saved)  # type: ignore[arg-type]  # plain data
    words = ["codebook=gaussian", "codebook.dim=4", "codebook.size=16", "codebook.num_codebooks=2"]
    lines = begun(saved, "trainer.freeze=[encoder,codebook]", *words)[1]
    assert "warning" not in str(lines)


def test_a_discriminator_is_taken_along_from_a_run(tiny: list[str], tmp_path: Path) -> None:
    judge = ["discriminator=patchgan", "discriminator.channels=4", "discriminator.num_layers=1"]
    words = [*tiny, *judge, "loss.adversarial.start_step=0"]
    words = [word for word in words if "max_steps" not in word]
    run = tmp_path / "run"
    assert main(["train", *words, "trainer.max_steps=1", f"run_dir={run}"]) == 0
    take = [*words, "init_from_discriminator=true", "trainer.max_steps=1", "optim.lr=0.5"]
    module, lines = begun(run, *take)
    trained = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["training"]
    weights = trained["discriminator"]["weights"]
    assert module.objective.discriminator is not None
    own = module.objective.discriminator.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in weights.items())
    assert lines[1] == f"init_from: {len(weights)} tensors of discriminator loaded"
    assert lines[2] == (
        "init_from takes over no settings of training, and there differ optim.lr (0.0002 -> 0.5)"
    )
    with pytest.raises(ConfigError, match=r"another one than there: .*channels \(4 -> 8\)"):
        begun(run, *take, "discriminator.channels=8")
    with pytest.raises(ConfigError, match=r"this run has no discriminator"):
        begun(run, *[word for word in take if not word.startswith("discriminator")])
    with pytest.raises(ConfigError, match=r"tokenizer holds no discriminator: name a run or"):
        begun(run / "tokenizer", *take)
