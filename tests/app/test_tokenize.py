"""``vqtrain tokenize`` as its users meet it: what it says, what it refuses, how it is killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from vqtrain.app import tokenize as command
from vqtrain.app.tokenize import hash_of
from vqtrain.build import config_of
from vqtrain.cli import main
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.decoding.sounds import SoundTransform
from vqtrain.data.media import IMAGE
from vqtrain.data.sources.find import open_samples
from vqtrain.data.tokens.read import read
from vqtrain.drawing.files import to_wav
from vqtrain.launchers.base import Done, Ended, Job
from vqtrain.sequence import SequenceLayout
from vqtrain.tokenizer.any_size import AnySize, Layout, decode, encode
from vqtrain.tokenizer.model import Tokenizer

SMALL = ["batch_size=4", "shard_size=10", "num_workers=0", "device=cpu"]


def make_tokenizer(codebook: dict[str, object], **summary: object) -> Tokenizer:
    torch.manual_seed(0)
    network = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    encoder = {"in_channels": 3, "num_downsamplings": 2, **network}
    decoder = {"out_channels": 3, "num_upsamplings": 2, **network}
    return Tokenizer(
        encoder={"kind": "vqvae", "arguments": encoder},
        codebook=codebook,
        decoder={"kind": "vqvae", "arguments": decoder},
        channels=3,
        training=summary,
    ).eval()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


FSQ = {"kind": "fsq", "arguments": {"size": 1000, "levels": None, "eps": 1e-3}}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1.0}}


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """Be in a folder that holds a tokenizer."""
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer(FSQ, image_size=16)
    tokenizer.save_pretrained("tokenizer")
    return tokenizer


@pytest.fixture
def words(tokenizer: Tokenizer, pictures: Path) -> list[str]:
    assert tokenizer.training_summary == {"image_size": 16}
    return ["tokenize", "tokenizer=tokenizer", f"images={pictures}", *SMALL]


def content_of(folder: Path | str) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_the_ids_are_those_of_the_tokenizer(words, tokenizer, pictures, capsys):
    assert main(words) == 0
    transform = ImageTransform(
        image_size=16, channels=3, crop="resize", flip=False, range=None, background="white"
    )
    paths = sorted(pictures.iterdir())
    samples = list(read("tokens", verify=True))
    assert [sample.key for sample in samples] == [path.stem for path in paths]
    for sample, path in zip(samples, paths, strict=True):
        pixels = transform.decode(path.read_bytes(), None)[None]
        ids = tokenizer.encode(tokenizer.to_images(pixels))[0]
        assert (sample.token_ids != ids.numpy()).mean() <= 1 / 16  # a near tie, in another batch
        assert sample.token_ids.dtype == np.uint16
    index = json.loads(Path("tokens/index.json").read_text())
    assert index["tokenizer"]["sha256"] == hash_of(tokenizer)
    assert index["tokens"] == {"shape": [4, 4], "dtype": "uint16", "size": 1000}
    assert (index["samples"], len(index["files"])) == (48, 5)
    shown = capsys.readouterr().out
    assert "48 samples in 5 files, 0.1 MB: uint16 [4, 4], 1,000 ids" in shown
    assert "skipped     0\n" in shown


def test_ids_of_sounds_go_to_shards_and_back(hums, sound_tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["tokenize", f"tokenizer={sound_tokenizer}", f"sounds={hums}", *SMALL]
    assert main([*words, "max_bad_fraction=0.5"]) == 0
    index = json.loads(Path("tokens/index.json").read_text())
    assert index["tokens"] == {"shape": [2, 400], "dtype": "uint8", "size": 64}
    assert (index["settings"]["sample_rate"], index["settings"]["length"]) == (8000, 1600)
    assert [fault["key"] for fault in index["skipped"]] == ["none"]
    tokenizer = Tokenizer.from_pretrained(sound_tokenizer)
    transform = SoundTransform(sample_rate=8000, channels=1, length=1600)
    for sample in read("tokens", verify=True):
        ids = torch.from_numpy(sample.token_ids.astype(np.int64))[None]
        sound = transform.decode((hums / f"{sample.key}.wav").read_bytes(), None)[None]
        own = tokenizer.decode(tokenizer.encode(sound))
        assert (tokenizer.decode(ids) - own).abs().max() <= 1e-4
        layout = SequenceLayout(size=64, num_codebooks=2, order="delayed")
        assert torch.equal(layout.to_token_ids(layout.to_sequence(ids), (2, 400)), ids)
    assert main([*words, "length=800", "layout=flat", "max_bad_fraction=0.5", "out=flat"]) == 0
    assert np.load("flat/tokens.npy").shape == (6, 2, 200)


def test_a_length_beyond_every_file_is_refused_and_leaves_nothing(
    hums, sound_tokenizer, ramps, clip_tokenizer, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    sounds = ["tokenize", f"tokenizer={sound_tokenizer}", f"sounds={hums}", "length=4000", *SMALL]
    longest = "the longest is 'hum-5': 2850 samples at 8000 Hz are fewer than the length of 4000"
    clips = ["tokenize", f"tokenizer={clip_tokenizer}", f"videos={ramps}", "frames=64", *SMALL]
    for words, message in (
        (sounds, f"none of 7 sounds that were tried can be used, {longest}"),
        ([*sounds, "devices=2"], longest),
        (clips, "none of 4 clips that were tried can be used, the longest is "),
    ):
        assert main(words) == 2
        assert message in one_line(capsys)
        assert not Path("tokens").exists()
    # With a larger share of bad samples the few that are long enough may be what is wanted.
    assert main([*sounds, "max_bad_fraction=0.9"]) == 1
    assert "7 of 7 sounds cannot be used" in capsys.readouterr().err


def test_sounds_and_clips_are_kept_whole(
    hums, sound_tokenizer, ramps, clip_tokenizer, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    sounds = tmp_path / "sounds"
    shutil.copytree(hums, sounds, ignore=shutil.ignore_patterns("none.wav"))
    (sounds / "tiny.wav").write_bytes(to_wav(torch.zeros(1, 3), 8000))
    kept = [word for word in SMALL if not word.startswith("batch_size")]
    words = ["tokenize", f"tokenizer={sound_tokenizer}", f"sounds={sounds}", *kept]
    assert main([*words, "whole=true", "max_bad_fraction=0.2"]) == 0
    index = json.loads(Path("tokens/index.json").read_text())
    assert (index["tokens"]["shape"], index["settings"]["whole"]) == (None, True)
    (fault,) = index["skipped"]
    assert (fault["key"], "a sample of 3 does not divide" in fault["reason"]) == ("tiny", True)
    # 1,600 + 250 n values, cut to tokens of 4.
    found = {sample.key: sample.token_ids.shape for sample in read("tokens", verify=True)}
    assert found == {f"hum-{n}": (2, (1600 + 250 * n) // 4) for n in range(6)}
    clips = [f"tokenizer={clip_tokenizer}", f"videos={ramps}", "whole=true", "out=clips"]
    assert main(["tokenize", *clips, *kept]) == 0
    assert next(read("clips")).token_ids.shape == (6, 5, 6)  # 12 frames of 20 x 24 px
    for more, message in (
        (["length=800"], "length=800 cuts what whole=true keeps"),
        (["layout=flat"], "ids of samples of any size differ in shape"),
    ):
        assert main([*words, "whole=true", *more, "out=wrong"]) == 2
        assert message in capsys.readouterr().err


def test_ids_of_clips_have_three_axes(ramps, clip_tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["tokenize", f"tokenizer={clip_tokenizer}", f"videos={ramps}", *SMALL]
    assert main([*words, "frames=8"]) == 0
    index = json.loads(Path("tokens/index.json").read_text())
    assert (index["samples"], index["tokens"]["shape"]) == (4, [4, 4, 4])
    assert (index["settings"]["frames"], index["settings"]["fps"]) == (8, 8.0)
    tokenizer = Tokenizer.from_pretrained(clip_tokenizer)
    ids = torch.from_numpy(next(read("tokens", verify=True)).token_ids.astype(np.int64))
    assert tokenizer.decode(ids[None]).shape == (1, 3, 8, 16, 16)


def test_images_need_not_be_squares(words):
    assert main([*words, "image_size=[8,24]"]) == 0
    index = json.loads(Path("tokens/index.json").read_text())
    assert (index["tokens"]["shape"], index["settings"]["image_size"]) == ([2, 6], [8, 24])


def test_images_of_any_size_have_ids_of_their_shape_and_a_layout(words, tokenizer, pictures):
    kept = [word for word in words if not word.startswith("batch_size")]
    assert main([*kept, "pad=true", "max_tokens=12"]) == 0
    index = json.loads(Path("tokens/index.json").read_text())
    assert (index["tokens"]["shape"], index["settings"]["max_tokens"]) == (None, 12)
    sample = next(read("tokens", verify=True))
    layout = Layout.from_json(sample.fields["layout.json"])
    # 12 x 15 px are the largest of this shape that 12 tokens of 4 px hold, 3 x 4.
    assert (layout.size, layout.resized, layout.encoded) == ((20, 24), (12, 15), (12, 16))
    ids = torch.from_numpy(sample.token_ids.astype(np.int64))
    assert ids.shape == (3, 4)
    assert decode(tokenizer, ids, layout).shape == (1, 3, 20, 24)
    whole = Image.open(pictures / f"{sample.key}.png").convert("RGB")
    images = tokenizer.to_images(torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None])
    expected = encode(tokenizer, images, AnySize(pad=True, max_tokens=12)).token_ids
    assert torch.equal(ids, expected)
    assert main([*kept, "tile=32", "thumbnail=true", "out=tiles"]) == 0
    assert next(read("tiles")).token_ids.shape == (1, 8, 8)


def test_latents_of_a_continuous_tokenizer_are_images_to_train_on(words, pictures, capsys):
    model = make_tokenizer(KL, image_size=16)
    model.save_pretrained("tokenizer")
    assert main([*words, "latents=true", "image_size=[8,12]"]) == 0
    said = capsys.readouterr().out
    index = json.loads(Path("tokens/index.json").read_text())
    assert index["latents"] == {"shape": [2, 3, 4], "dtype": "float16"}
    assert "tokens" not in index
    transform = ImageTransform(
        image_size=[8, 12], channels=3, crop="resize", flip=False, range=None, background="white"
    )
    expected = []
    for path in sorted(pictures.iterdir()):
        images = model.to_images(transform.decode(path.read_bytes(), None)[None])
        latents = model.latents(images)[:, :4]  # the means
        expected.append(latents[0].movedim(0, -1).detach().numpy())
    limit = re.search(r"data.range=\[-([\d.]+),", said)[1]
    assert f"data.channels=4 'data.image_size=[2,3]' 'data.range=[-{limit},{limit}]'" in said
    found = open_samples("tokens", IMAGE, role="training")
    arrays = ImageTransform(
        image_size=[2, 3],
        channels=4,
        crop="native",
        flip=False,
        range=(-float(limit), float(limit)),
        background="white",
    )
    for number, latents in enumerate(expected):
        read_again = arrays.decode(found.read(number), None).movedim(0, -1).numpy()
        np.testing.assert_allclose(read_again, latents, rtol=2**-10, atol=1e-6)
    assert len(found) == len(expected)
    np.testing.assert_allclose(
        index["statistics"]["mean"], np.mean(expected, axis=(0, 1, 2)), atol=1e-3
    )


def test_what_is_complete_is_said_to_be(words, capsys):
    assert main(words) == 0
    before = content_of("tokens")
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("tokens was complete already\n")
    assert content_of("tokens") == before


def test_shares_come_together(words, capsys):
    assert main([*words, "out=one"]) == 0
    assert main([*words, "out=two", "share=1/3"]) == 0
    assert "share 1/3 is done; index.json comes with the last share" in capsys.readouterr().out
    assert main([*words, "out=two", "share=0/3"]) == 0
    assert main([*words, "out=two", "share=2/3"]) == 0
    assert content_of("two") == content_of("one")


def test_a_hash_tells_tokenizers_apart_and_not_their_places(tokenizer):
    tokenizer.save_pretrained("elsewhere")
    assert hash_of(Tokenizer.from_pretrained("elsewhere")) == hash_of(tokenizer)
    with torch.no_grad():
        tokenizer.project_in.bias[0] += 1e-3
    assert hash_of(Tokenizer.from_pretrained("elsewhere")) != hash_of(tokenizer)


def test_bf16_is_a_setting_of_its_own(words, capsys):
    assert main([*words, "precision=bf16-mixed"]) == 0
    assert main(words) == 2
    assert "with precision=bf16-mixed, not 32-true" in capsys.readouterr().err


def test_help_shows_every_key_and_two_examples(capsys):
    assert main(["tokenize", "--help"]) == 0
    shown = capsys.readouterr().out
    for key in yaml.safe_load(config_of("command", "tokenize").read_text()):
        assert f"\n  {key} " in shown
    assert shown.count("  vqtrain tokenize tokenizer=") == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["images="], "name the images: vqtrain tokenize tokenizer=PATH images=IMAGES"),
        (["tokenizer="], "name the tokenizer: vqtrain tokenize tokenizer=PATH images="),
        (["tokenizer=nowhere"], "no tokenizer at nowhere"),
        (["tokenizer=unsized"], "the tokenizer does not say on which size it was trained"),
        (
            ["tokenizer=kl", "image_size=16"],
            "so there are no token ids: write its latents by latents=true",
        ),
        (["latents=true", "image_size=16"], "and codebook=fsq has ids, which are smaller"),
        (["tokenizer=kl", "latents=true", "layout=flat"], "latents=true needs layout=webdataset"),
        (["tokenizer=kl", "latents=true", "pad=true"], "leave out max_tokens, pad, tile and"),
        (["latents=true", "whole=true"], "whole=true keeps ids of clips and sounds"),
        (["images=nowhere"], "images: nowhere does not exist"),
        (["out=images/out", "images=images"], "out=images/out lies inside images=images"),
        (["out=foreign"], "out=foreign holds notes.txt, which is not of vqtrain tokenize"),
        (["image_size=18"], "does not divide into tokens of 4 x 4"),
        (["batch_size=0"], "batch_size must be at least 1, got 0"),
        (["shard_size=0"], "shard_size must be at least 1, got 0"),
        (["layout=tar"], "layout must be one of webdataset, flat, got 'tar'"),
        (["max_bad_fraction=2"], "max_bad_fraction must be in [0, 1], got 2"),
        (["share=3/3"], "share must be r/n with r from 0 to n - 1, such as 0/4, got 3/3"),
        (["share=0/2", "devices=2"], "share=0/2 is of one process: leave out the launcher"),
        (["launcher=slrum"], "unknown kind 'slrum', did you mean 'slurm'?"),
        (["devices=0"], "devices must be at least 1, got 0"),
        (["jobs=2"], "jobs=2 is for a cluster: give devices=2, or a launcher"),
        (["launcher=ray", "devices=2"], "devices=2 is for this machine: give jobs=2"),
        (["launcher=ray", "launcher_options={gpu: 1}"], "unknown key 'gpu', did you mean 'gpus'?"),
        (["launcher_options={gpus: 1}"], "launcher=local takes no launcher_options"),
        (["shard_sise=1"], "unknown key 'shard_sise', did you mean 'shard_size'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words, capsys, changed, message):
    make_tokenizer(FSQ).save_pretrained("unsized")
    make_tokenizer(KL).save_pretrained("kl")
    for folder in ("images", "foreign"):
        Path(folder).mkdir()
    Path("foreign/notes.txt").touch()
    before = content_of(".")
    assert main([*words, *changed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert content_of(".") == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_signal_ends_it_and_says_how_to_go_on(words, capsys, monkeypatch, number, code):
    writing = command.write
    # A training run in this process has taken the signals over, and a shell may ignore them.
    taken = signal.signal(signal.SIGINT, signal.default_int_handler)

    def stopped(*arguments: object, **options: object) -> object:
        def stop(_shard: str, done: int, _total: int) -> None:
            if done == 18:
                os.kill(os.getpid(), number)

        return writing(*arguments, **{**options, "progress": stop})

    with monkeypatch.context() as patched:
        patched.setattr(command, "write", stopped)
        assert main([*words, "out=broken"]) == code
    signal.signal(signal.SIGINT, taken)
    said = "stopped, batches are kept: run the same command again to continue"
    assert capsys.readouterr().out.splitlines()[-1] == said
    assert main([*words, "out=broken"]) == 0
    assert main([*words, "out=unbroken"]) == 0
    assert content_of("broken") == content_of("unbroken")


KILLED = """
import os, signal, sys
from vqtrain.app import tokenize
from vqtrain.cli import main
original = tokenize.encoder

def encoder(*arguments):
    encode, left = original(*arguments), [5]
    def killing(pixels):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return encode(pixels)
    return killing

tokenize.encoder = encoder
main(["tokenize", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_kill_between_two_batches_changes_no_byte(words, start_python, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    with start_python(script, *words[1:], "out=broken") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert Path("broken/.tokenize/plan.json").is_file()
    assert main([*words, "out=broken"]) == 0
    assert main([*words, "out=unbroken"]) == 0
    assert content_of("broken") == content_of("unbroken")


@pytest.mark.slow
def test_two_processes_of_the_launcher_write_what_one_writes(words, vqtrain):
    done = vqtrain(*words, "out=two", "devices=2")
    assert done.returncode == 0, done.stderr
    assert "48 samples in 5 files" in done.stdout
    assert main([*words, "out=one"]) == 0
    assert content_of("two") == content_of("one")


def test_a_share_that_fails_is_said_after_the_others_have_ended(words, capsys, monkeypatch):
    def run_here(_self: object, jobs: list[Job], *, done: Done, **_options: object) -> None:
        done(jobs[1], Ended(code=137, reason="killed by SIGKILL"))
        done(jobs[0], Ended(code=main(jobs[0].commands[0]), reason=""))

    monkeypatch.setattr("vqtrain.launchers.local.Local.launch", run_here)
    assert main([*words, "devices=2"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vqtrain: share 1/2 ended with 137: killed by SIGKILL; the logs ")
    assert line.endswith("; run the same command again to continue")
    assert not Path("tokens/index.json").exists()
    assert main([*words, "share=1/2"]) == 0
    assert Path("tokens/index.json").exists()


def test_a_mistake_that_all_shares_find_is_one_line(words, capsys, monkeypatch):
    def refuse(
        _self: object, jobs: list[Job], *, logs: Path, done: Done, **_options: object
    ) -> None:
        logs.mkdir(parents=True)
        for job in jobs:
            done(job, Ended(code=2, reason="device is cuda, but torch finds none here"))

    monkeypatch.setattr("vqtrain.launchers.local.Local.launch", refuse)
    assert main([*words, "devices=2"]) == 2
    assert capsys.readouterr().err == "vqtrain: device is cuda, but torch finds none here\n"
    assert not Path("tokens").exists()


def test_the_command_line_of_a_share_is_that_of_the_command(words, monkeypatch):
    seen = []

    def note(_self: object, jobs: list[Job], **_options: object) -> object:
        seen.extend(command for job in jobs for command in job.commands)
        raise KeyboardInterrupt

    monkeypatch.setattr("vqtrain.launchers.local.Local.launch", note)
    taken = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert main([*words[:-2], "devices=2", "out=a b", "launcher=local"]) == 130
    signal.signal(signal.SIGINT, taken)
    workers = [word for word in seen[0] if word.startswith("num_workers=")]
    assert [word for word in seen[0] if not re.match("num_workers|share", word)] == [
        *(word for word in words[:-2] if not word.startswith("num_workers")),
        "out=a b",
    ]
    assert len(workers) == 1
    assert [command[-1] for command in seen] == ["share=0/2", "share=1/2"]


@pytest.mark.soak
@pytest.mark.parametrize("devices", [1, 2])
def test_a_storm_of_kills_changes_no_byte(
    words: list[str],
    pictures: Path,
    start_vqtrain: Callable[..., subprocess.Popen[str]],
    devices: int,
) -> None:
    random = Random(devices)
    many = f"images={[str(pictures)] * 12}"
    assert main([*words, many, "out=unbroken"]) == 0
    broken = [*words, many, "out=broken", "num_workers=1", f"devices={devices}"]
    state, kept = Path("broken/.tokenize"), [0]
    while len(kept) <= 5:
        process = start_vqtrain(*broken)
        while command.progress_of(state) <= kept[-1]:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.01))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(1)  # the processes of a launcher end after it
        kept.append(command.progress_of(state))
        assert kept[-1] < 12 * 48
    done = start_vqtrain(*broken)
    assert done.communicate(timeout=240)
    assert done.returncode == 0
    assert content_of("broken") == content_of("unbroken")
