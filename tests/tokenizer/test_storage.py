"""Tokenizers on disk: whole or not at all, and nothing of theirs is ever run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from vqtrain import Tokenizer
from vqtrain.errors import CheckpointError
from vqtrain.tokenizer import storage


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {
                "in_channels": 3,
                "channels": 4,
                "block_channels": 2,
                "num_blocks": 0,
                "num_downsamplings": 1,
            },
        },
        codebook={
            "kind": "simvq",
            "arguments": {
                "size": 4,
                "dim": 2,
                "codebook_weight": 1.0,
                "commitment_weight": 0.25,
                "gradient": "straight_through",
            },
        },
        decoder={
            "kind": "vqvae",
            "arguments": {
                "out_channels": 3,
                "channels": 4,
                "block_channels": 2,
                "num_blocks": 0,
                "num_upsamplings": 1,
            },
        },
        channels=3,
        training={"name": "test", "step": 7},
    )
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def change(directory: Path, edit: Callable[[dict[str, object]], object]) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text())
    edit(config)
    file.write_text(json.dumps(config))


def test_what_config_json_says(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["format_version"] == 2
    assert config["image"] == {
        "channels": 3,
        "range": [-1.0, 1.0],
        "pixels": [0, 255],
        "pixel_type": "uint8",
    }
    assert config["downsampling"] == [2, 2]
    assert config["token_ids"] == {
        "vocab_size": 4,
        "num_codebooks": 1,
        "id_order": "row of the table",
        "grids": [],
        "selection_rule": "smallest Euclidean distance to the mapped table",
    }
    assert config["training"] == {"name": "test", "step": 7}
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"]) == config


def test_a_run_directory_and_a_checkpoint_are_tokenizers_too(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    saved.rename(run / "tokenizer")
    tokenizer = Tokenizer.from_pretrained(run)
    checkpoint = {
        "tokenizer": {
            "config": storage.stamped(tokenizer.config),
            "weights": dict(tokenizer.state_dict()),
        }
    }
    torch.save(checkpoint, tmp_path / "a.ckpt")
    images = torch.rand(1, 3, 8, 8)
    other = Tokenizer.from_pretrained(tmp_path / "a.ckpt")
    assert torch.equal(other.encode(images), tokenizer.encode(images))


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda config: config.update(format_version=99), "format_version is 99"),
        (lambda config: config.pop("format_version"), "no tokenizer of vqtrain"),
        (lambda config: config.pop("codebook"), "'codebook' must be a mapping"),
        (lambda config: config.update(encoder="vqvae"), "'encoder' must be a mapping"),
        (lambda config: config.update(image={}), "image.channels"),
        (lambda config: config["image"].update(pixel_type="int3"), "pixel_type must be uint8 or"),
        (lambda config: config["image"].update(pixels=[0]), "image.pixels must be two numbers"),
        (lambda config: config["image"].update(pixels="x"), "image.pixels must be two numbers"),
        (
            lambda config: config["image"].update(pixel_type="float32", pixels=[1, 0]),
            "black and white, got [1.0, 0.0]",
        ),
        (lambda config: config["codebook"].update(kind="nonsense"), "unknown kind 'nonsense'"),
        (lambda config: config["codebook"].update(kind=7), "codebook must be"),
        (lambda config: config["codebook"]["arguments"].update(size=5), "codebook.frozen is [4"),
        (lambda config: config["codebook"]["arguments"].update(size="x"), "codebook.size must be"),
        (lambda config: config["encoder"].update(kind="os:system"), "add allow=[os]"),
        (lambda config: config["encoder"].update(kind="base"), "unknown kind 'base'"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_sentence(
    saved: Path, edit: Callable[[dict[str, object]], object], word: str
) -> None:
    change(saved, edit)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_pretrained(saved)
    assert word in str(caught.value)
    assert str(saved) in str(caught.value)


def test_files_that_do_not_speak_of_pixels_mean_uint8(saved: Path) -> None:
    change(saved, lambda config: config.update(image={"channels": 3, "range": [-1.0, 1.0]}))
    assert Tokenizer.from_pretrained(saved).pixel_range is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_config_is_one_sentence(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json"):
        Tokenizer.from_pretrained(saved)


@pytest.mark.parametrize("keep", [0, 4, 60, -8])
def test_a_truncated_weights_file_is_one_sentence(saved: Path, keep: int) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors"):
        Tokenizer.from_pretrained(saved)


def test_a_header_that_claims_10_gb_is_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes((10 * 2**30).to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors"):
        Tokenizer.from_pretrained(saved)


def test_weights_without_a_file_are_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors"):
        Tokenizer.from_pretrained(saved)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_a_place_without_a_tokenizer_is_named(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"no tokenizer at {path}"):
        Tokenizer.from_pretrained(path)


@pytest.mark.parametrize("given", ["runs/photos", "runs/fotos", "runs/fotos/", "runs/fotos/latest"])
def test_the_run_that_may_be_meant_is_named(
    given: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/photos/1").mkdir(parents=True)
    Path("runs/photos/latest").symlink_to("1")
    saved.rename("runs/photos/1/tokenizer")
    with pytest.raises(CheckpointError, match=r", did you mean runs/photos/latest\?$"):
        Tokenizer.from_pretrained(given)


class Trap:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    hostile = {"tokenizer": {"config": Trap(proof), "weights": {}}}
    torch.save(hostile, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(hostile))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(CheckpointError, match=f"cannot read .*{name}"):
            Tokenizer.from_pretrained(tmp_path / name)
    assert not proof.exists()


def test_some_other_torch_file_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of vqtrain"):
        Tokenizer.from_pretrained(tmp_path / "a.ckpt")
    torch.save(torch.zeros(3), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of vqtrain"):
        Tokenizer.from_pretrained(tmp_path / "a.ckpt")


def test_an_allowed_package_is_loaded(saved: Path) -> None:
    change(saved, lambda config: config["codebook"].update(kind="vqtrain.codebooks.simvq:SimVQ"))  # type: ignore[attr-defined]  # plain data
    with pytest.raises(CheckpointError, match="code outside vqtrain"):
        Tokenizer.from_pretrained(saved)
    assert isinstance(Tokenizer.from_pretrained(saved, allow=["vqtrain"]), nn.Module)


def test_a_codebook_inside_another_one_is_checked_too(saved: Path) -> None:
    inner = {"kind": "os.path:join", "size": None}
    arguments = {"size": 4, "num_codebooks": 2, "inner": inner}
    change(
        saved, lambda config: config.update(codebook={"kind": "grouped", "arguments": arguments})
    )
    with pytest.raises(CheckpointError, match=r"its codebook is 'os.path:join', code outside vqt"):
        Tokenizer.from_pretrained(saved)


VERSIONS = sorted((Path(__file__).parent / "versions").iterdir())


def test_there_is_a_directory_of_every_version() -> None:
    versions = {int(path.name.partition("-")[0]) for path in VERSIONS}
    assert versions == set(range(1, storage.FORMAT_VERSION + 1))


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.name)
def test_a_tokenizer_of_every_version_gives_the_ids_that_it_gave(path: Path) -> None:
    images = (torch.arange(192) * torch.arange(192) * 0.7).sin().reshape(1, 3, 8, 8)
    token_ids = Tokenizer.from_pretrained(path).encode(images)
    assert token_ids.tolist() == json.loads((path / "ids.json").read_text())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]  # a file
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        storage.write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_one_sentence(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write the tokenizer to"):
        Tokenizer.from_pretrained(saved).save_pretrained(tmp_path / "file" / "below")
