"""``vqtrain convert`` as its users meet it: what it says, writes and refuses."""

import hashlib
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from taming.modules.diffusionmodules.model import Decoder, Encoder
from torch import nn

from vqtrain.app.convert import tokens_of
from vqtrain.app.parts.keys import main as run_command
from vqtrain.app.parts.pages import kinds_for
from vqtrain.cli import main as command_line
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.tokenizer.model import Tokenizer

SIZES = {
    "double_z": False,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": (1, 1),
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "z_channels": 8,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small VQGAN as taming-transformers saves it."""
    parts = {
        "encoder": Encoder(**SIZES),
        "decoder": Decoder(**SIZES),
        "quantize": nn.ModuleDict({"embedding": nn.Embedding(16, 4)}),
        "quant_conv": nn.Conv2d(8, 4, 1),
        "post_quant_conv": nn.Conv2d(4, 8, 1),
    }
    file = tmp_path_factory.mktemp("my models") / "last.ckpt"
    torch.save({"state_dict": nn.ModuleDict(parts).state_dict()}, file)
    return file


def main(words: list[str]) -> int:
    """Convert, or raise what is wrong."""
    return run_command("convert", words)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_the_last_screen_says_what_was_converted_and_what_is_next(checkpoint, capsys):
    assert main(["kind=taming", f"path={checkpoint}", "out=my tokenizer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tokenizer = Tokenizer.from_pretrained("my tokenizer")
    parameters = sum(item.numel() for item in tokenizer.parameters())
    at = lines.index("converted   last.ckpt (taming) to my tokenizer")
    assert lines[at + 1 : at + 5] == [
        "network     encoder=cnn codebook=vq decoder=cnn",
        f"parameters  {parameters:,}",
        "token ids   16, one for 2 x 2 px",
        "try next:",
    ]
    reconstruct, train = lines[at + 5 :]
    assert reconstruct == (
        "  vqtrain reconstruct tokenizer='my tokenizer' images=demo image_size=256"
    )
    assert train == (
        "  vqtrain train init_from='my tokenizer' data.train=FOLDER data.image_size=256"
    )


def test_latents_take_the_place_of_ids_of_a_continuous_tokenizer():
    network = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    encoder = {"kind": "vqvae", "arguments": {"in_channels": 3, "num_downsamplings": 2, **network}}
    decoder = {"kind": "vqvae", "arguments": {"out_channels": 3, "num_upsamplings": 2, **network}}
    codebook = {"kind": "kl", "arguments": {"size": None, "dim": 6, "kl_weight": 1.0}}
    tokenizer = Tokenizer(encoder=encoder, codebook=codebook, decoder=decoder, channels=3)
    assert tokens_of(tokenizer) == "none: 6 channels for 4 x 4 px"


def test_ids_are_counted_of_the_size_that_a_network_takes():
    network = {"sample_size": [16, 16], "patch_size": 4, "num_tokens": 5, "dim": 8, "depth": 1}
    network |= {"num_heads": 2, "attention": "self", "positions": "learned"}
    ends = {"out_channels": 3, "head": "linear", "nested_dropout": "none"}
    codebook = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
    encoder = {"kind": "latent_query", "arguments": network | {"in_channels": 3, "transpose": True}}
    decoder = {"kind": "latent_query", "arguments": network | ends}
    tokenizer = Tokenizer(encoder=encoder, codebook=codebook, decoder=decoder, channels=3)
    assert tokens_of(tokenizer) == "15, 5 for 16 x 16 px"


def test_the_summary_names_the_source_and_not_where_it_was(checkpoint):
    assert main(["kind=taming", f"path={checkpoint}"]) == 0
    training = json.loads(Path("converted/config.json").read_text())["training"]
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert training == {"converted_from": {"kind": "taming", "files": {"last.ckpt": digest}}}
    assert sorted(path.name for path in Path().iterdir()) == ["converted"]


def test_keys_of_a_kind_reach_it(checkpoint):
    assert main(["kind=taming", f"path={checkpoint}", "legacy=false"]) == 0
    arguments = json.loads(Path("converted/config.json").read_text())["codebook"]["arguments"]
    assert (arguments["codebook_weight"], arguments["commitment_weight"]) == (1.0, 0.25)


def test_the_help_lists_each_kind_and_its_keys(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    kinds = {"taming", "latent_diffusion", "llamagen", "ibq", "chameleon"}
    assert kinds <= set(kinds_for("format.convert"))
    for kind, page in kinds_for("format.convert").items():
        assert f"\n  {kind} " in text
        for option, line in page.meanings.items():
            if option == "kind":
                continue
            assert len(line) > 10, f"the config of {kind} says nothing of {option}"
            assert f"{option} " in text
            assert line in text
    assert text.count("\n  vqtrain convert kind=") == 2
    assert all(len(line) < 140 for line in text.splitlines())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "name the kind: vqtrain convert kind=KIND path=PATH"),
        (["kind=taming"], "name the path: vqtrain convert kind=KIND path=PATH"),
        (["kind=tamin", "path={file}"], "unknown kind 'tamin', did you mean 'taming'"),
        (["kind=taming", "path=nowhere"], "path=nowhere: there is no such file"),
        (["kind=taming", "path={file}", "out=."], "out=. exists already"),
        (["kind=taming", "path={file}", "ema=true"], "kind=taming: unknown key 'ema'"),
        (["kind=taming", "path={file}", "legcy=true"], "unknown key 'legcy', did you mean 'leg"),
        (["kind=taming", "path={file}", "legacy=7"], "legacy must be true or false, got 7"),
        (["kind=taming", "path={file}", "--print-config"], "has no configuration"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(checkpoint, tmp_path, typed, said):
    with pytest.raises(ConfigError, match=said):
        main([word.format(file=checkpoint) for word in typed])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_kind_writes_nothing(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot convert .*last\.ckpt: "):
        main(["kind=llamagen", f"path={checkpoint}"])
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert command_line(["convert", "kind=ibq", "path=text.ckpt"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "vqtrain: cannot read text.ckpt: it is no checkpoint, neither of torch nor safetensors\n"
    )


def test_what_cannot_be_written_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(Tokenizer, "save_pretrained", fail)
    with pytest.raises(CheckpointError, match="the disk is full"):
        main(["kind=taming", f"path={checkpoint}"])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_made_is_one_sentence(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write file/out: "):
        main(["kind=taming", f"path={checkpoint}", "out=file/out"])


@pytest.mark.slow
def test_the_command_for_training_goes_on_from_the_weights(
    checkpoint: Path,
    tiny: list[str],
    vqtrain: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["kind=taming", f"path={checkpoint}"]) == 0
    typed = shlex.split(capsys.readouterr().out.splitlines()[-1])[1:]
    for_training = [word for word in tiny if not word.startswith(("encoder", "decoder", "codeb"))]
    kept = [word for word in typed if not word.startswith("data.")]
    # With next to no rate of learning the run is the tokenizer that it began from.
    for_training += ["trainer.max_steps=2", "optim.lr=1e-12", "run_dir=run"]
    result = vqtrain(*kept, *for_training)
    assert result.returncode == 0, result.stderr
    before = Tokenizer.from_pretrained(tmp_path / "converted")
    after = Tokenizer.from_pretrained(tmp_path / "run")
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(after.encode(images), before.encode(images))
    ids = before.encode(images)
    torch.testing.assert_close(after.decode(ids), before.decode(ids))
