"""``vqtrain reconstruct`` as its users meet it."""

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from vqtrain import Tokenizer
from vqtrain.cli import main
from vqtrain.data.decoding.clips import ClipTransform
from vqtrain.drawing.panels import panel_size, to_panel
from vqtrain.evaluation.side_by_side import panels_of
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.si_sdr import SISDR
from vqtrain.ops.pixels import to_pixels

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}


def save_tokenizer(folder: Path, codebook: dict[str, object]) -> Tokenizer:
    tokenizer = Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "in_channels": 3, "num_downsamplings": 2},
        },
        codebook=codebook,
        decoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
        training={"image_size": 16},
    ).eval()
    tokenizer.save_pretrained(folder)
    return tokenizer


FSQ = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1e-6}}


def size_of_the_picture_in(folder: str) -> tuple[int, int]:
    (file,) = Path(folder).glob("*.png")
    with Image.open(file) as picture:
        return picture.size


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    monkeypatch.chdir(tmp_path)
    return save_tokenizer(tmp_path / "tokenizer", FSQ)


def test_a_whole_picture_stands_beside_its_reconstruction(
    tokenizer: Tokenizer, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", "tokenizer=tokenizer", f"images={pictures}", "limit=2"]) == 0
    rows = [
        json.loads(line) for line in Path("reconstructions/psnr.jsonl").read_text().splitlines()
    ]
    assert [(row["width"], row["height"]) for row in rows] == [(24, 20)] * 2
    shown = np.asarray(Image.open(f"reconstructions/{rows[0]['file']}"))
    picture = Image.open(pictures / f"{rows[0]['key']}.png").convert("RGB")
    original = np.asarray(picture)
    assert shown.shape == (20 + 4 + 20, 3 * 28 + 4, 3)
    assert (shown[4:24, 4:28] == original).all()
    images = tokenizer.preprocess(picture)
    made = tokenizer.to_pixels(tokenizer.decode(tokenizer.encode(images)))[0]
    assert (shown[4:24, 32:56] == made.permute(1, 2, 0).numpy()).all()
    squares = np.mean((original.astype(float) - made.permute(1, 2, 0).numpy()) ** 2)
    assert rows[0]["psnr"] == pytest.approx(10 * np.log10(255**2 / squares), abs=1e-3)
    printed = capsys.readouterr().out
    assert "images      2 in reconstructions" in printed
    assert f"{rows[0]['psnr']:.2f} dB, {rows[0]['file']}" in printed


def test_a_sound_is_heard_and_seen_beside_its_reconstruction(
    hums: Path,
    sound_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["reconstruct", f"tokenizer={sound_tokenizer}", f"sounds={hums}"]
    assert main(words) == 0
    lines = Path("reconstructions/si_sdr.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    # 1,600 + 250 n values, cut to tokens of 4.
    assert [row["length"] for row in rows] == [1600, 1848, 2100, 2348, 2600, 2848]
    original = soundfile.read(hums / "hum-1.wav", dtype="int16")[0]
    both = [
        soundfile.read(f"reconstructions/hum-1.{name}.wav", dtype="int16")
        for name in ("original", "reconstruction")
    ]
    assert [rate for _, rate in both] == [8000, 8000]
    assert np.abs(both[0][0].astype(int) - original[:1848]).max() <= 1
    tokenizer = Tokenizer.from_pretrained(sound_tokenizer)
    samples = tokenizer.preprocess(original)
    made = tokenizer.decode(tokenizer.encode(samples))
    np.testing.assert_allclose(both[1][0] / 32767, made[0, 0], atol=2e-5)
    assert rows[1]["si_sdr"] == pytest.approx(float(SISDR()(made, samples)), abs=1e-3)
    picture = np.asarray(Image.open("reconstructions/hum-1.png"))
    first, second, _ = panels_of(picture, panel_size((1848,)), is_stacked=True)
    assert np.array_equal(first, to_panel(samples[0], 8000.0))
    assert np.array_equal(second, to_panel(made[0], 8000.0))
    printed = capsys.readouterr().out
    assert "sounds      6 in reconstructions" in printed
    assert "skipped     1\n            none: no wav, flac, ogg or mp3" in printed
    assert main([*words, "length=800", "limit=1", "out=short"]) == 0
    assert json.loads(Path("short/si_sdr.jsonl").read_text())["length"] == 800
    for mistake, message in (
        ([f"images={hums}"], "takes sounds: give sounds=SOUNDS instead of images"),
        ([f"sounds={hums}", "pad=true"], "max_tokens, pad, tile and thumbnail are for images"),
        ([f"sounds={hums}", "frames=4"], "frames are of clips: tokenizer takes sounds"),
        ([f"sounds={hums}", "length=801"], "the nearest sizes that do: 800 and 804"),
    ):
        assert main([*words[:2], *mistake, "out=wrong"]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.count("\n") == 1


def test_a_clip_plays_and_is_a_strip_beside_its_reconstruction(
    ramps: Path, clip_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["reconstruct", f"tokenizer={clip_tokenizer}", f"videos={ramps}", "limit=2"]
    assert main([*words, "frames=8", "image_size=[16,20]"]) == 0
    lines = Path("reconstructions/psnr.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    assert (row["frames"], row["height"], row["width"]) == (8, 16, 20)
    tokenizer = Tokenizer.from_pretrained(clip_tokenizer)
    transform = ClipTransform(
        image_size=[16, 20],
        channels=3,
        crop="resize",
        flip=False,
        range=None,
        background="white",
        frames=8,
        fps=8.0,
        stride=1,
    )
    pixels = transform.decode((ramps / "ramp-1.mp4").read_bytes(), None)
    samples = tokenizer.to_images(pixels[None])
    made = tokenizer.decode(tokenizer.encode(samples))
    picture = np.asarray(Image.open("reconstructions/ramp-1.png"))
    first, second, ids = panels_of(picture, panel_size((8, 16, 20)), is_stacked=True)
    assert np.array_equal(first, to_panel(samples[0]))
    assert np.abs(second.astype(int) - to_panel(made[0])).max() <= 1
    assert len(np.unique(ids.reshape(-1, 3), axis=0)) > 2
    frames = [to_pixels(each)[0].movedim(1, 0) for each in (made, samples)]
    assert row["psnr"] == pytest.approx(float(PSNR()(*frames).mean()), abs=1e-2)
    with av.open("reconstructions/ramp-1.mp4") as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert frames.shape == (8, 16, 40, 3)
    expected = np.concatenate([pixels, to_pixels(made)[0]], axis=3).transpose(1, 2, 3, 0)
    assert np.abs(frames.astype(int) - expected).mean() < 4


def test_a_missing_package_is_one_line(
    hums: Path,
    sound_tokenizer: Path,
    ramps: Path,
    clip_tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package, words, message in (
        ("av", [f"tokenizer={clip_tokenizer}", f"videos={ramps}"], "clips need PyAV"),
        ("soxr", [f"tokenizer={sound_tokenizer}", f"sounds={hums}"], "sounds need soxr"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        assert main(["reconstruct", *words]) == 2
        printed = capsys.readouterr().err
        assert f"{message}: pip install" in printed
        assert printed.count("\n") == 1


@pytest.mark.usefixtures("tokenizer")
def test_squares_and_tiles_are_made_on_request(pictures: Path) -> None:
    words = ["reconstruct", "tokenizer=tokenizer", f"images={pictures}", "limit=1"]
    # 24 x 20 px are 6 x 5 tokens; scaled to 12 of them and back, and in one tile of 32 x 32 px.
    for number, more in enumerate((["max_tokens=12", "pad=true"], ["tile=32", "thumbnail=true"])):
        assert main([*words, *more, f"out=whole-{number}"]) == 0
        assert size_of_the_picture_in(f"whole-{number}") == (3 * (24 + 4) + 4, 20 + 4 + 20)
    assert main([*words, "image_size=[12,20]", "out=wide"]) == 0
    assert size_of_the_picture_in("wide") == (3 * (20 + 4) + 4, 12 + 4 + 20)
    assert main([*words, "image_size=16", "tile=32", "out=squares"]) == 0
    assert size_of_the_picture_in("squares") == (3 * 20 + 4, 16 + 4 + 20)


def test_a_continuous_codebook_has_no_picture_of_ids(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tokenizer(tmp_path / "tokenizer", KL)
    assert main(["reconstruct", "tokenizer=tokenizer", f"images={pictures}", "limit=1"]) == 0
    assert size_of_the_picture_in("reconstructions") == (2 * 28 + 4, 20 + 4 + 20)


@pytest.mark.usefixtures("tokenizer")
def test_a_damaged_picture_is_passed_over_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (2, 40)).save(folder / "thin.png")
    Image.new("RGB", (8, 8)).save(folder / "whole.png")
    (tmp_path / "cut.tar").write_bytes(b"x" * 600)
    images = f"images={tmp_path}/{{mixed,cut.tar}}"
    assert main(["reconstruct", "tokenizer=tokenizer", images]) == 0
    printed = capsys.readouterr().out
    assert f"skipped     3\n{'':<12}{tmp_path / 'cut.tar'}: it is not a tar (" in printed
    assert "thin: 2 x 40 px hold no token of 4 x 4 px" in printed
    assert [file.name for file in Path("reconstructions").glob("*.png")] == ["whole.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=demo"], "name the tokenizer: vqtrain reconstruct tokenizer=PATH"),
        (["tokenizer=tokenizer"], "name the images"),
        (["tokenizer=nothing", "images=demo"], "nothing"),
        (["tokenizer=tokenizer", "images=nowhere", "out=tokenizer"], "images: nowhere does not"),
        (["tokenizer=tokenizer", "images=demo", "out=tokenizer"], "out=tokenizer exists already"),
        (
            ["tokenizer=tokenizer", "images=demo", "tile=10"],
            "tile must be a multiple of 4 px and at least 32",
        ),
        (["tokenizer=tokenizer", "images=demo", "thumbnail=true"], "thumbnail=true needs tile="),
        (
            ["tokenizer=tokenizer", "images=demo", "pad=true", "image_size=16"],
            "image_size crops images, which max_tokens, pad and thumbnail keep whole",
        ),
        (["tokenizer=tokenizer", "images=demo", "image_size=10"], "10 x 10 does not divide"),
        (
            ["tokenizer=tokenizer", "images=demo", "image_size=9000"],
            "at most 8192 or [height,width] or null, got 9000",
        ),
        (["tokenizer=tokenizer", "images=demo", "image_size=0"], "image_size must be at least 1"),
        (
            ["tokenizer=tokenizer", "images=demo", "crop=middle"],
            "maskbit, ldm, got 'middle'",
        ),
        (["tokenizer=tokenizer", "images=demo", "limit=0"], "limit must be at least 1"),
        (["tokenizer=tokenizer", "videos=demo"], "takes images: give images=IMAGES instead of"),
        (
            ["tokenizer=tokenizer", "images=demo", "length=9"],
            "length is of sounds: tokenizer",
        ),
        (["tokenizer=tokenizer", "images=demo", "sounds=demo"], "images and sounds are of several"),
        (["tokenizer=tokenizer", "images=demo", "device=gpu"], "unknown device 'gpu'"),
        (
            ["tokenizer=tokenizer", "images=demo", "precision=half"],
            "one of 32-true, bf16-mixed, 16-mixed, 64-true, bf16-true, got 'half'",
        ),
        (["tokenizer=tokenizer", "images=demo", "tiles=8"], "did you mean 'tile'?"),
    ],
)
@pytest.mark.usefixtures("tokenizer")
def test_a_mistake_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.usefixtures("tokenizer")
def test_other_precisions_can_be_chosen(pictures: Path) -> None:
    words = ["reconstruct", "tokenizer=tokenizer", f"images={pictures}", "limit=1"]
    assert main([*words, "precision=bf16-mixed", "out=half"]) == 0
    assert main([*words, "precision=bf16-true", "out=narrow"]) == 0
    assert main([*words, "precision=64-true", "out=double"]) == 0
    rows = [Path(f"{out}/psnr.jsonl").read_text() for out in ("half", "narrow", "double")]
    assert rows[2] not in rows[:2]
