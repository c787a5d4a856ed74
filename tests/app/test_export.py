"""``vqtrain export`` as its users meet it: what it says, what it refuses, what it leaves behind."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from vqtrain import Tokenizer
from vqtrain.app.parts.compared import samples_of
from vqtrain.app.parts.pages import kinds_for
from vqtrain.cli import main
from vqtrain.errors import ConfigError, DataError, VqtrainError
from vqtrain.formats import safetensors
from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.card import SAMPLES_FILE

NETWORK = {"channels": 4, "block_channels": 2, "num_blocks": 0}
FSQ = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1.0}}
MULTISCALE = {
    "kind": "multiscale",
    "arguments": {
        "size": 16,
        "scales": [1, 2, 4],
        "num_convolutions": 2,
        "convolution_share": 0.5,
        "convolution_weight": 1.0,
        "inner": {"kind": "fsq", "size": None, "levels": [4, 4], "eps": 1e-3},
    },
}


def make(codebook: dict[str, object] = FSQ, image_size: int = 16) -> Tokenizer:
    return Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {"in_channels": 3, "num_downsamplings": 2, **NETWORK},
        },
        codebook=codebook,
        decoder={
            "kind": "vqvae",
            "arguments": {"out_channels": 3, "num_upsamplings": 2, **NETWORK},
        },
        channels=3,
        training={"name": "mine", "image_size": image_size},
    ).eval()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in an empty folder but for a tokenizer."""
    monkeypatch.chdir(tmp_path)
    make().save_pretrained("mine")


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run what fails, and return its exit code and its one line."""
    code = main(["export", *arguments])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return code, error


def test_the_last_screen_says_what_was_written_how_it_agrees_and_what_is_next(pictures, capsys):
    assert main(["export", "tokenizer=mine", f"images={pictures}", "out=a/new folder"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == "writing safetensors and comparing it with PyTorch ..."
    assert "written     a/new folder" in lines
    # 3 of 4 x 4 ids, 3 of 4 x 3 and 2 of 3 x 4.
    agreement = "8 images: 108 of 108 ids are equal, pixels differ by at most 0.0e+00"
    assert f"checked     {agreement}" in lines
    assert lines[-2:] == [
        "  from vqtrain import Tokenizer",
        "  Tokenizer.from_pretrained('a/new folder')",
    ]
    assert Tokenizer.from_pretrained("a/new folder").vocab_size == 15
    assert Path("a/new folder").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in Path("a").iterdir()] == ["new folder"]


def test_the_help_names_formats_and_keys(capsys):
    assert main(["export", "--help"]) == 0
    printed = capsys.readouterr().out
    for word in (*kinds_for("format.export"), "tokenizer", "images"):
        assert f"\n  {word} " in printed
    for word in ("push", "precision"):
        assert f"\n    {word} " in printed
    assert printed.count("\n  vqtrain export tokenizer=") == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tokenizer=mine", "format=onyx"], "unknown format 'onyx', did you mean 'onnx'?"),
        (["tokenizer=mine", "pushed=me/mine"], "unknown key 'pushed', did you mean 'push'?"),
        (["tokenizer=mine", "precision=float16"], "format=safetensors: unknown key 'precision'"),
        (["tokenizer=mine", "format=onnx", "push=me/mine"], "format=onnx: unknown key 'push'"),
        (["tokenizer=mine", "out=mine"], "out=mine exists already"),
        (["tokenizer=mine", "image_size=10"], "does not divide into tokens of 4 x 4"),
        (["tokenizer=mine", "image_size=4"], "image_size must be at least 8, two tokens"),
        (["tokenizer=mine", "images=nowhere"], "nowhere"),
        (["tokenizer=yours"], "no tokenizer at yours"),
        ([], "name the tokenizer"),
    ],
)
def test_a_mistake_is_told_in_a_line(arguments, reason, pictures, capsys):
    if not any(argument.startswith("images=") for argument in arguments):
        arguments = [*arguments, f"images={pictures}"]
    code, error = failure(capsys, *arguments)
    assert (code, reason in error) == (2, True), error
    assert [path.name for path in Path().iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "word", ["diffusers", "llamagen", "onnx", "space", "taming", "torch_export", "var", "web"]
)
def test_what_a_format_cannot_be_is_said_before_anything_else(word, pictures, capsys):
    make(KL).save_pretrained("kl")
    assert main(["export", "tokenizer=kl", f"format={word}", f"images={pictures}"]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert sorted(path.name for path in Path().iterdir()) == ["kl", "mine"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (VqtrainError("it differs"), 1, "it differs"),
        (ConfigError("it cannot go there"), 2, "it cannot go there"),
        (OSError(28, "No space left on device"), 2, "cannot write new: No space left"),
    ],
)
def test_what_fails_leaves_nothing(error, code, said, pictures, monkeypatch, capsys):
    def write_half(self: Exporter, tokenizer: Tokenizer, out: Path, *, images: object) -> None:
        del self, tokenizer, images
        (out / "half").write_text("half")
        raise error

    monkeypatch.setattr(safetensors.Safetensors, "export", write_half)
    found, line = failure(capsys, "tokenizer=mine", f"images={pictures}", "out=new")
    assert (found, said in line) == (code, True)
    assert [path.name for path in Path().iterdir()] == ["mine"]


def test_pictures_are_of_three_sizes_unless_the_tokenizer_has_one(pictures):
    shapes = [tuple(batch.shape) for batch in samples_of(make(), str(pictures))]
    assert shapes == [(3, 3, 16, 16), (3, 3, 16, 12), (2, 3, 12, 16)]
    shapes = [tuple(batch.shape) for batch in samples_of(make(), str(pictures), image_size=32)]
    assert shapes == [(3, 3, 32, 32), (3, 3, 32, 24), (2, 3, 24, 32)]
    [batch] = samples_of(make(MULTISCALE), str(pictures))
    assert batch.shape == (8, 3, 16, 16)
    # Graphs of a transformer hold the positions of one size.
    placed = make()
    placed.decoder.sample_size = (16, 16)
    assert [len(batch) for batch in samples_of(placed, str(pictures))] == [8]
    with pytest.raises(
        ConfigError, match=r"image_size must be 16 x 16, the only size.*got 32 x 32"
    ):
        samples_of(placed, str(pictures), image_size=32)
    # Two tokens is the least of a side, and one picture is enough.
    one = str(next(pictures.iterdir()))
    shapes = [tuple(batch.shape) for batch in samples_of(make(image_size=8), one)]
    assert shapes == [(1, 3, 8, 8)]


def test_pictures_are_spread_over_all_and_a_bad_one_is_named(tmp_path):
    folder = tmp_path / "shades"
    folder.mkdir()
    for shade in range(15):
        Image.new("RGB", (16, 16), (17 * shade,) * 3).save(folder / f"{shade:02d}.png")
    batches = samples_of(make(), str(folder))
    means = torch.cat([batch.mean((1, 2, 3)) for batch in batches])
    shades = ((means + 1) * 127.5 / 17).round().sort().values
    assert shades.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    (folder / "04.png").write_text("text")
    with pytest.raises(DataError, match="cannot read 04: no JPEG"):
        samples_of(make(), str(folder))


def test_the_card_of_a_run_has_its_command_lines(pictures):
    shutil.copytree("mine", "run/tokenizer")
    commands = ["vqtrain train name=mine", "vqtrain train resume=auto"]
    Path("run/environment.json").write_text(json.dumps({"commands": commands}))
    assert main(["export", "tokenizer=run", f"images={pictures}"]) == 0
    block = "```sh\nvqtrain train name=mine\nvqtrain train resume=auto\n```"
    assert block in Path("exported/README.md").read_text()


def test_the_demos_pictures_are_always_there(capsys):
    assert main(["export", "tokenizer=mine"]) == 0
    assert "8 images" in capsys.readouterr().out
    assert Path("exported", SAMPLES_FILE).is_file()


STRANGER = '''
"""A format of another package."""

import torch
from vqtrain.formats.base import Converter, Exporter
from vqtrain.formats.parts.agreement import Tolerance, compare
from vqtrain.tokenizer.model import Tokenizer


class Twice(Exporter, Converter):
    """Two tokenizers in a folder.

    Args:
        name: Of the second one.
    """

    def __init__(self, *, name: str = "second") -> None:
        self.name = name

    def export(self, tokenizer, out, *, images):
        tokenizer.save_pretrained(out / "first")
        tokenizer.save_pretrained(out / self.name)
        loaded = self.convert(out)
        return compare(
            tokenizer, images, encode=loaded.encode, decode=loaded.decode, tolerance=Tolerance()
        )

    def example(self, out):
        return f"import {self.name}"

    def convert(self, path):
        return Tokenizer.from_pretrained(path / self.name)
'''


def test_a_strangers_format_is_exported_to_and_converted_from(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_strangers_formats.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    kind = "a_strangers_formats:Twice"
    assert main(["export", "tokenizer=mine", f"format={kind}", "name=other", "out=two"]) == 0
    assert capsys.readouterr().out.endswith("try next:\n  import other\n")
    assert main(["convert", f"kind={kind}", "path=two", "name=other", "out=back"]) == 0
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    ids = Tokenizer.from_pretrained("back").encode(images)
    assert torch.equal(ids, Tokenizer.from_pretrained("mine").encode(images))
    capsys.readouterr()
    _, error = failure(capsys, "tokenizer=mine", f"format={kind}", "nme=other", "out=three")
    assert "unknown key 'nme', did you mean 'name'?" in error
    _, error = failure(capsys, "tokenizer=mine", "format=vqtrain.formats.chameleon:Chameleon")
    assert "format=vqtrain.formats.chameleon:Chameleon is no vqtrain.formats.base.Exporter" in error


def test_clips_and_sounds_are_compared(
    clip_tokenizer, ramps, sound_tokenizer, hums, tmp_path, capsys
):
    sounds = tmp_path / "hums"
    shutil.copytree(hums, sounds, ignore=shutil.ignore_patterns("none.wav"))
    for name, words, compared in (
        # Two clips of 4 x 4 x 4 ids, one with 3 columns of them, one with 3 frames.
        ("clips", [clip_tokenizer, f"videos={ramps}", "frames=8"], "4 clips: 224 of 224"),
        # Of two codebooks: 2 sounds of 400 ids, and 4 of 300.
        ("sounds", [sound_tokenizer, f"sounds={sounds}"], "6 sounds: 4,000 of 4,000"),
    ):
        tokenizer, *more = words
        assert main(["export", f"tokenizer={tokenizer}", *more, f"out={name}"]) == 0
        assert f"checked     {compared} ids are equal" in capsys.readouterr().out
    card = Path("sounds/README.md").read_text()
    assert "| ids of a sound of 1,600 values | 2 x 400 |" in card


def test_samples_of_other_media_are_refused(clip_tokenizer, pictures, capsys):
    code, error = failure(capsys, f"tokenizer={clip_tokenizer}", f"images={pictures}", "out=new")
    assert (code, "takes clips: give videos=VIDEOS instead of images" in error) == (2, True)
