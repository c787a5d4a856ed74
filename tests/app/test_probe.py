"""``vqtrain probe`` as its users meet it: what it finds, what it refuses, how it continues."""

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from vqtrain.app.parts.compose import flatten
from vqtrain.build import config_of
from vqtrain.cli import main
from vqtrain.generation.results import read_probe, write_probe
from vqtrain.metrics.fid import FID
from vqtrain.tokenizer.model import Tokenizer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
LFQ = {
    "commitment_weight": 0.05,
    "entropy_weight": 0.02,
    "diversity": 1.0,
    "temperature": 0.1,
    "group_bits": 9,
    "size": 2**20,
}
CODEBOOKS: dict[str, dict[str, object]] = {
    "fsq": {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
    "fsq-64": {"kind": "fsq", "arguments": {"size": 64, "levels": None, "eps": 1e-3}},
    "lfq": {"kind": "lfq", "arguments": LFQ},
    "kl": {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1.0}},
}
SMALL = [
    *("batch_size=8", "num_workers=0", "device=cpu", "metrics=[psnr]", "perturb.shares=[0.0,0.5]"),
    *("perturb.neighbors=3", "transformer.batch_size=4", "transformer.dim=32"),
    *("transformer.depth=1", "transformer.budget=6e8", "samples.count=4"),
]


def make_tokenizer(codebook: dict[str, object]) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = Tokenizer(
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
        training={"image_size": 16},
    ).eval()
    with torch.no_grad():
        tokenizer.project_in.weight.mul_(30)  # untrained, it would use one id alone
    return tokenizer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A folder with tokenizers, and ids of the first one."""
    folder = tmp_path_factory.mktemp("home")
    for name, codebook in CODEBOOKS.items():
        make_tokenizer(codebook).save_pretrained(folder / name)
    for name in ("pictures", "foreign"):
        (folder / name).mkdir()
    (folder / "foreign/notes.txt").touch()
    words = [f"tokenizer={folder / 'fsq'}", f"images={pictures}", f"out={folder / 'tokens'}"]
    assert main(["tokenize", *words, "num_workers=0", "device=cpu"]) == 0
    return folder


@pytest.fixture(scope="module")
def tiny(home: Path, pictures: Path) -> list[str]:
    """The words of a tiny probe, in any folder."""
    return ["probe", f"tokenizer={home / 'fsq'}", f"images={pictures}", *SMALL]


@pytest.fixture(scope="module")
def probed(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe of one tokenizer, done by this process without an interruption."""
    folder = tmp_path_factory.mktemp("probed") / "probe"
    assert main([*tiny, f"out={folder}"]) == 0
    return folder


def figures_of(folder: Path) -> dict[str, object]:
    """What was found, without times."""
    text = (folder / "probe.json").read_text()
    return json.loads(text, object_hook=lambda found: {**found, "seconds": 0, "vqtrain": ""})


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def content_of(folder: Path | str) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


# In place of images.
TOKENS = ["tokens=tokens", "val=demo", "images="]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["images="], "name the images: vqtrain probe tokenizer=PATH images=IMAGES"),
        (["tokenizer=nowhere"], "no tokenizer at nowhere"),
        (["tokenizer=kl"], "so there are no token ids: probe a tokenizer that has"),
        (["tokenizer=fsq,kl"], "kl: codebook=kl is continuous, so there are no token ids"),
        (["tokenizer=fsq,fsq"], "tokenizer=fsq is named twice"),
        (["images=nowhere"], "images: nowhere does not exist"),
        (["val=nowhere"], "val: nowhere does not exist"),
        (["image_size=18"], "does not divide into tokens of 4 x 4"),
        (["tokens=tokens"], "tokens are in place of images: leave out one of the two"),
        (["tokens=tokens", "images="], "val=auto holds out some of images, but tokens are given"),
        ([*TOKENS, "tokenizer=fsq,fsq-64"], "tokens=tokens are of one tokenizer, got 2"),
        ([*TOKENS, "tokenizer=fsq-64"], "tokens=tokens are ids of another tokenizer"),
        ([*TOKENS, "image_size=8"], "tokens=tokens were written with image_size=16, not 8"),
        ([*TOKENS, "crop=adm"], "tokens=tokens were written with crop=resize, not adm"),
        (["transformer.batch_size=64"], "32 images to train on are fewer than the 64 of a step"),
        (
            ["transformer.budget=1e6"],
            ": transformer.budget=1e+06 buys 0 steps of 4 samples of 16 ids",
        ),
        (["transformer.budget=1e30"], "steps of 4 samples, at most 1,000,000,000 can be done: use"),
        (
            ["transformer.budget=1e30", "transformer.depth=null", "transformer.dim=null"],
            " of memory, of which ",
        ),
        (["tokenizer=lfq"], "1048576, at least 100 are needed: use transformer.budget="),
        (["transformer.accumulate=3"], "transformer: batch_size=4 cannot be split evenly"),
        (["transformer.condition=cls"], "transformer.condition=cls: images have no such field"),
        (["transformer.dim=40"], "transformer.dim must be a multiple of 32, got 40"),
        (["transformer.depth=0"], "transformer.depth must be at least 1 or null, got 0"),
        (["transformer.order=random"], "transformer.order must be one of interleaved, delayed"),
        (["perturb.shares=[0.5,0.5]"], "perturb.shares must be different numbers"),
        (["perturb.shares=[2]"], "perturb.shares must be a list, each item in [0, 1], got [2]"),
        (["perturb.neighbors=0"], "perturb.neighbors must be at least 1, got 0"),
        (["samples.top_p=0"], "samples.top_p must be above 0 and at most 1 or null, got 0"),
        (["samples.temperature=-1"], "samples.temperature must be at least 0"),
        (["samples.count=0"], "samples.count must be at least 1, got 0"),
        (["probe=[entropy,transformers]"], "did you mean transformer?"),
        (["probe=entropie"], "did you mean entropy?"),
        (["probe=[]"], "probe must name at least one of entropy, perturb, transformer, samples"),
        (["probe=samples"], "probe=samples draws from the transformer: give probe=[transformer,"),
        (["metrics=[pnsr]"], "did you mean 'psnr'?"),
        (["devices=0"], "devices must be at least 1, got 0"),
        (["out=foreign"], "out=foreign is not of vqtrain probe: give another folder"),
        (["out=fsq/config.json"], "out=fsq/config.json is not of vqtrain probe"),
        (["out=pictures/a", "images=pictures"], "out=pictures/a lies inside images=pictures"),
        (["transformers.depth=1"], "did you mean 'transformer.depth'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    home: Path,
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(home)
    before = content_of(".")
    if "images=" in changed:  # leaves it out
        tiny = [word for word in tiny if not word.startswith("images=")]
        changed = [word for word in changed if word != "images="]
    assert main([*tiny, *changed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert content_of(".") == before


def test_all_stages_come_to_figures_and_pictures(probed: Path) -> None:
    (found,) = read_probe(probed).tokenizers
    assert (found.name, found.kind, found.size, found.token_shape) == ("fsq", "fsq", 15, [4, 4])
    assert found.bits_per_pixel == pytest.approx(16 * math.log2(15) / 16**2)
    assert set(found.reconstruction) == {"psnr"}
    assert found.entropy is not None
    assert found.perturb is not None
    assert [point.share for point in found.perturb.points] == [0, 0.5]
    assert found.perturb.points[0].metrics == found.reconstruction
    assert found.perturb.points[1].metrics["psnr"] < found.reconstruction["psnr"]
    trained = found.transformer
    assert trained is not None
    assert (trained.kind, trained.is_bound, trained.depth, trained.dim) == ("causal", False, 1, 32)
    assert trained.flops <= 6e8 < trained.flops * (1 + 1 / trained.steps)
    assert trained.bits_per_pixel == min(point.bits_per_pixel for point in trained.curve)
    assert trained.bits_per_pixel < found.bits_per_pixel
    assert found.samples is not None
    assert found.samples.count == 4
    # Four real images above four drawn ones, with 2 px between them.
    assert size_of(probed / "samples.png") == (2 * 16 + 2, 4 * 16 + 3 * 2)
    assert "transformer" in (probed / "report.html").read_text()


def test_what_is_done_is_not_done_again(
    probed: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = content_of(probed)
    assert main([*tiny, f"out={probed}"]) == 0
    assert f"{probed} was complete already\n" in capsys.readouterr().out
    assert content_of(probed) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["tokenizer=fsq-64"], "holds a probe of another tokenizer: give another folder"),
        (["tokenizer=fsq,fsq-64"], "holds a probe of one tokenizer: give another folder"),
        (["seed=1"], "holds a probe with seed=0, not 1: give seed=0, or another out"),
        (["transformer.budget=7e8"], "with transformer.budget=6e+08, not 7e+08: give"),
        (["perturb.shares=[0.1]"], "with perturb.shares=[0.0,0.5], not [0.1]: give"),
        (["val=demo"], "holds a probe with other train images: give another out"),
    ],
)
def test_other_figures_need_another_folder(
    home: Path,
    probed: Path,
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(home)
    before = content_of(probed)
    assert main([*tiny, f"out={probed}", *changed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert content_of(probed) == before


def test_a_stage_can_be_added_with_keys_of_its_own(
    probed: Path, tiny: list[str], tmp_path: Path
) -> None:
    words = [*tiny, f"out={tmp_path / 'probe'}"]
    assert main([*words, "probe=entropy", "transformer.budget=1e9"]) == 0
    (found,) = read_probe(tmp_path / "probe").tokenizers
    assert found.perturb is None
    assert not (tmp_path / "probe/transformer").exists()
    assert main([*words, "probe=entropy,perturb"]) == 0
    figures, all_figures = figures_of(tmp_path / "probe"), figures_of(probed)
    for word in ("entropy", "perturb", "reconstruction"):
        assert figures["tokenizers"][0][word] == all_figures["tokenizers"][0][word]


class Means(torch.nn.Module):
    """Takes the mean of each channel as the features of an image."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return three features."""
        return pixels.float().mean(dim=(2, 3))


def test_drawn_images_are_measured_where_fid_is(
    probed: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(fid: FID, files: object) -> None:
        del files
        fid.network = Means()

    monkeypatch.setattr(FID, "load", load)
    folder = tmp_path / "probe"
    shutil.copytree(probed, folder)
    before = read_probe(folder)
    settings = {**before.settings, "metrics": ["psnr", "fid"]}
    begun = replace(before.tokenizers[0], samples=None)
    write_probe(replace(before, settings=settings, tokenizers=[begun]), folder)
    weights = tmp_path / "inception.pth"
    weights.touch()
    words = [*tiny, "metrics=[psnr,fid]", f"weights.inception={weights}", f"out={folder}"]
    assert main(words) == 0
    samples = read_probe(folder).tokenizers[0].samples
    assert samples is not None
    assert set(samples.metrics) == {"fid", "precision", "recall"}
    assert samples.metrics["fid"] > 0


@pytest.mark.slow
def test_a_killed_probe_continues_to_the_same_figures(
    tiny: list[str], tmp_path: Path, start_vqtrain: Start
) -> None:
    # So long that it is not over when the signal comes.
    words = [*tiny, "probe=transformer", "transformer.budget=6e9"]
    assert main([*words, f"out={tmp_path / 'whole'}"]) == 0
    words.append(f"out={tmp_path / 'probe'}")
    with start_vqtrain(*words) as killed:
        checkpoint = tmp_path / "probe/transformer/checkpoints/last.ckpt"
        while not checkpoint.exists():
            assert killed.poll() is None
            time.sleep(0.005)
        killed.kill()
    assert read_probe(tmp_path / "probe").tokenizers[0].transformer is None
    assert main(words) == 0
    assert figures_of(tmp_path / "probe") == figures_of(tmp_path / "whole")


@pytest.mark.slow
def test_several_tokenizers_are_compared_and_one_that_fails_stops_no_other(
    home: Path, probed: Path, tiny: list[str], tmp_path: Path, vqtrain: Run
) -> None:
    broken = make_tokenizer(CODEBOOKS["fsq"])
    with torch.no_grad():
        broken.project_in.weight[0] = math.nan
    broken.save_pretrained(tmp_path / "broken")
    names = [str(home / "fsq"), "broken", str(home / "fsq-64")]
    done = vqtrain(*tiny, f"tokenizer={','.join(names)}", "devices=2")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines if line.startswith(("done", "failed"))] == [
        *(["done", "fsq"], ["failed", "broken"], ["done", "fsq-64"]),
        lines[-1].split(),
    ]
    assert re.search(r"failed +broken: .* latents that are not finite.*logs/broken.log$", lines[-1])
    together = read_probe(tmp_path / "probe")
    assert [found.name for found in together.tokenizers] == ["fsq", "fsq-64"]
    # Two processes have trained each transformer, to the figures of one.
    trained = [read_probe(each).tokenizers[0].transformer for each in (probed, tmp_path / "probe")]
    assert None not in trained
    rates = [each.bits_per_pixel for each in trained if each is not None]
    assert rates[1] == pytest.approx(rates[0], rel=1e-4)
    assert size_of(tmp_path / "probe/probe.png") > (600, 300)
    assert "fsq-64" in (tmp_path / "probe/report.html").read_text()
    assert (tmp_path / "probe/table.md").read_text().count("\n") == 4
    # What is done is not done again.
    again = vqtrain(*tiny, f"tokenizer={names[0]},{names[2]}")
    assert again.returncode == 0
    assert "2, 2 complete already" in again.stdout


def test_help_shows_every_key_and_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("probe", "sample"):
        assert main([word, "--help"]) == 0
        shown = capsys.readouterr().out
        for key in flatten(yaml.safe_load(config_of("command", word).read_text())):
            assert f"\n  {key} " in shown
        assert shown.partition("examples:")[2].count(f"  vqtrain {word} ") == 2


def test_ids_of_sounds_are_counted_and_perturbed(
    hums: Path, sound_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe"
    words = ["probe", f"tokenizer={sound_tokenizer}", f"sounds={hums}", f"val={hums}"]
    words += ["num_workers=0", "device=cpu", "max_bad_fraction=0.5", f"out={out}"]
    assert main([*words, "probe=[entropy,perturb]", "perturb.shares=[0.5]"]) == 0
    (found,) = read_probe(out).tokenizers
    # Two codebooks of 64 ids for 4 values.
    assert (found.image_size, found.token_shape, found.bits_per_pixel) == ([1600], [2, 400], 3)
    assert found.entropy is not None
    per_value = found.tokens_per_image / 1600
    assert found.entropy.bits_per_pixel["context"] == pytest.approx(
        found.entropy.bits_per_token["context"] * per_value
    )
    assert "an sound" not in (printed := capsys.readouterr().out)
    assert "2 x 400 tokens a sound of 1,600 values" in printed
    assert main([*words[:-1], f"out={tmp_path / 'whole'}"]) == 2
    assert "of images: of sounds give probe=[entropy,perturb]" in capsys.readouterr().err
