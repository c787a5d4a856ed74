"""``vqtrain train`` from the outside: what it writes, and every mistake in one line."""

import json
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from vqtrain import Tokenizer
from vqtrain.cli import main

Run = Callable[..., subprocess.CompletedProcess[str]]


GAN = "discriminator=patchgan discriminator.num_layers=1"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def assert_trained(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(value is not None for line in lines for value in line.values())
    assert lines[-1]["train/skipped_steps"] == 0
    Tokenizer.from_pretrained(run)


def test_networks_of_one_size_refuse_buckets(capsys: pytest.CaptureFixture[str]) -> None:
    networks = [
        f"{part}{value}"
        for part in ("encoder", "decoder")
        for value in ("=latent_query", ".dim=16", ".depth=1", ".num_heads=2")
    ]
    words = ["data.image_size=64", "data.aspect=buckets", "metrics=[psnr]"]
    assert main(["train", "--print-config", *networks, *words]) == 2
    assert "data.aspect=buckets: this encoder takes samples of 64 x 64, got 96 x 48" in one_line(
        capsys
    )
    scales = ["codebook=multiscale", "codebook.scales=[1,4,16]", "codebook.num_convolutions=1"]
    assert main(["train", "--print-config", *scales, *words]) == 2
    assert "data.aspect=buckets: " in one_line(capsys)
    # Sides of two latents, of which the upper level has one.
    assert main(["train", "--print-config", "codebook=hierarchical", *words]) == 0


@pytest.mark.slow
def test_a_run_leaves_what_people_keep(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", *tiny, "name=test", "data.image_size=[16,24]", "data.aspect=buckets"]) == 0
    )
    latest = tmp_path / "runs/test/latest"
    assert latest.is_symlink()
    assert sorted(p.name for p in latest.iterdir() if not p.name.startswith(".")) == [
        "checkpoints",
        "config.yaml",
        "environment.json",
        "images",
        "log.txt",
        "metrics.jsonl",
        "report.html",
        "tokenizer",
    ]
    # Pictures of 24 x 20 px get the size of about 16 * 24 px whose shape is nearest to theirs.
    assert "training images by height x width: 16 x 20: 32\n" in (latest / "log.txt").read_text()
    config = yaml.safe_load((latest / "config.yaml").read_text())
    assert config["data"]["train"] == str(pictures)
    assert config["encoder"]["kind"] == "vqvae"
    names = sorted(p.name for p in (latest / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "step_00000002.ckpt", "step_00000004.ckpt"]
    assert (latest / "images/step_00000004.png").exists()
    lines = [json.loads(line) for line in (latest / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"train/generator/total", "train/codebook/usage"} <= lines[0].keys()
    assert {"val/psnr", "val/ssim", "val/codebook/perplexity"} <= lines[1].keys()
    tokenizer = Tokenizer.from_pretrained(latest)
    assert tokenizer.training_summary["step"] == 4
    assert tokenizer.specification["encoder"]["arguments"]["in_channels"] == 3
    checkpoint = Tokenizer.from_pretrained(latest / "checkpoints/last.ckpt")
    for name, weight in tokenizer.state_dict().items():
        assert torch.equal(weight, checkpoint.state_dict()[name]), name


@pytest.mark.slow
def test_the_screen_shows_the_run_and_nothing_of_the_libraries(
    tiny: list[str], vqtrain: Run, tmp_path: Path
) -> None:
    done = vqtrain("train", *tiny, f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == f"run directory: {tmp_path / 'run'}"
    assert any(line.startswith("step 4/4  validation: psnr ") for line in lines)
    assert sum("images/s" in line for line in lines) == 4
    assert "try next:" in lines
    for word in ("GPU available", "TPU", "Tip", "litlogger", "Warning", "warn("):
        assert word not in done.stdout
    logged = (tmp_path / "run/log.txt").read_text()
    assert "images/s" in logged
    assert "val/psnr: " in logged


@pytest.mark.parametrize(
    ("word", "code", "expected"),
    [
        ("trainer.max_step=3", 2, "did you mean 'trainer.max_steps'?"),
        ("codbook=vq", 2, "did you mean 'codebook'?"),
        ("codebook=emma", 2, "unknown codebook 'emma', did you mean 'ema'?"),
        ("codebook=simvq codebook.decay=0.9", 2, "codebook.decay"),
        ("trainer.max_steps=abc", 2, "trainer.max_steps must be a whole number, got 'abc'"),
        ("trainer.max_steps=0", 2, "trainer.max_steps must be at least 1, got 0"),
        ("trainer.precision=half", 2, "got 'half'"),
        ("trainer.clip=-1", 2, "trainer.clip must be above 0 or null, got -1"),
        ("trainer.ema_decay=1", 2, "trainer.ema_decay must be in [0, 1), got 1"),
        ("trainer.max_time=soon", 2, "got 'soon'"),
        ("trainer.accelerator=abacus", 2, "trainer.accelerator"),
        ("data.batch_size=0", 2, "data.batch_size"),
        (
            "data.image_size=18",
            2,
            "data.image_size=18: a sample of 18 x 18 does not divide into tokens of 4 x 4",
        ),
        ("data.image_size=8", 2, "metrics: ssim needs images of at least 11 px, these have 8"),
        ("data.crop=midle", 2, "data.crop"),
        ("data.train=/nowhere/at/all", 2, "/nowhere/at/all"),
        ("data.sampling=resample", 2, "got 'resample'; did you mean resampled?"),
        ("data.aspect=bucket", 2, "got 'bucket'; did you mean buckets?"),
        (
            "data.aspect=buckets data.sampling=resampled",
            2,
            "data.aspect=buckets needs data.sampling=permuted, got resampled",
        ),
        (
            "data.aspect=buckets data.train=pipe:true data.val=demo",
            2,
            "data.aspect=buckets needs images whose sizes are known: pack what pipe: writes",
        ),
        (
            "data.aspect=buckets data.image_size=28 discriminator=patchgan",
            2,
            "data.aspect=buckets: images of 40 x 20 px do not fit this discriminator",
        ),
        ("data.range=[5,5]", 2, "data.range must be null or two numbers"),
        ("data.range=high", 2, "data.range must be a list, each item"),
        ("data.background=grue", 2, "data.background must be a color"),
        ("data.max_bad_fraction=1%", 2, "data.max_bad_fraction must be a number, got '1%'"),
        ("data.train=[{images:demo,weight:0}]", 2, "above 0 and at most 1000, got 0"),
        ("data.train=[{images:demo,wait:2}]", 2, "has the keys images and weight"),
        ("data.train=ftp://host/a.tar", 2, "URLs may begin with http://, https://, s3://"),
        ("data.channels=7 data.num_workers=0", 2, "mode RGB does not fit data.channels=7"),
        ("data.train=pipe: data.val=demo", 2, "pipe: must be followed by a command"),
        ("data.train=pipe:true", 2, "data.val=auto cannot hold out images of a pipe"),
        ("data=video", 2, "takes samples of 2 axes, and data=video gives clips, of 3"),
        ("data.channels=5 loss/perceptual=lpips", 2, "1 or 3 channels, got 5"),
        ("codebook.size=-1", 2, "codebook.size must be at least 1, got -1"),
        ("encoder.num_downsamplings=3", 2, "encoder divides the size of a sample by 8 x 8"),
        ("encoder.in_channels=1", 2, "unknown key 'encoder.in_channels'"),
        ("optim.lr=fast", 2, "optim.lr must be a number, got 'fast'"),
        ("optim.schedule=linear", 2, "got 'linear'"),
        (
            "optim.warmup_steps=9",
            2,
            "optim.warmup_steps must be at most 4 (trainer.max_steps), got 9",
        ),
        ("seed=x", 2, "seed must be a whole number, got 'x'"),
        ("seed=-1", 2, "seed must be at least 0, got -1"),
        ("name=a/b", 2, "'a/b'"),
        ("name=..", 2, "name must be a word that can name a folder, got '..'"),
        ("name=", 2, "name must be a word that can name a folder, got ''"),
        (f"name={300 * 'a'}", 2, "name must have at most 255 bytes"),
        ("run_dir=", 2, "run_dir must name a folder, got nothing"),
        ("run_dir=~nosuch/x", 2, "~nosuch/x: there is no user 'nosuch'"),
        (f"run_dir={300 * 'a'}", 2, "File name too long"),
        ("metrics.best=fid", 2, "got 'fid'"),
        ("codebook.size=1,2", 2, "'codebook.size=1,2': a run takes one value"),
        ("data.image_size=large", 2, "must be a whole number or [height,width], got 'large'"),
        ("data.train=null", 2, "data.train is not set: give a folder, data.train=FOLDER"),
        ("data.train=[1,2]", 2, "data.train must be demo, a folder, a glob, tars, a URL or a list"),
        ("trainer", 2, "cannot read 'trainer': write key=value"),
        ("--multirun", 2, "unknown option '--multirun'"),
        ("--config-dir=/nowhere", 2, "/nowhere"),
        ("resume=/nowhere", 2, "cannot resume from /nowhere"),
        ("init_from=/nowhere", 2, "no tokenizer at /nowhere"),
        ("data.val=/nowhere", 2, "/nowhere"),
        ("loss.reconstruction.weight=-1", 2, "weight"),
        ("discriminator=patch", 2, "unknown discriminator 'patch', did you mean 'patchgan'?"),
        ("discriminator=patchgan discriminator.norm=layer", 2, "got 'layer'"),
        (
            "discriminator=patchgan discriminator.norm=batch data.batch_size=1",
            2,
            "at least 2 for this discriminator, got 1; discriminator.norm=group takes any",
        ),
        (
            "discriminator=stylegan data.batch_size=1",
            2,
            "at least 2 for this discriminator, got 1; discriminator.group_size=1 takes any",
        ),
        (
            "discriminator=patchgan",
            2,
            "at least 24 for this discriminator, got 16; with discriminator.num_layers=1 it takes",
        ),
        (
            "discriminator=blur discriminator.num_layers=5",
            2,
            "data.image_size must be at least 32 for this discriminator, got 16",
        ),
        (
            "data.aspect=buckets discriminator=stylegan discriminator.channels=4",
            2,
            "do not fit this discriminator; it takes images of one size alone",
        ),
        ("loss.adversarial=vanilla", 2, "is a group: write loss/adversarial=vanilla"),
        (f"{GAN} loss.adversarial.start_step=150%", 2, "loss.adversarial.start_step must be"),
        ("trainer.num_nodes=2", 2, "use torchrun or srun"),
        (f"{GAN} loss.adversarial.start_step=4", 2, "must be below trainer.max_steps (4), got 4"),
        (f"{GAN} loss.adversarial.start_step=90%", 2, "got 4, which is 90% of it, rounded: take"),
        (f"{GAN} loss.adversarial.kind=wgan", 2, "'wgan'"),
        (f"{GAN} optim.discriminator.warmup_steps=3", 2, "must be at most 2 (the steps from"),
        (f"{GAN} optim.discriminator.lr=0", 2, "optim.discriminator.lr must be above 0"),
        ("loss/perceptual=lpips loss.perceptual.network=vggg", 2, "vggg"),
        ("loss/perceptual=lpips weights.vgg=/nowhere/vgg.pth", 2, "weights.vgg"),
        (
            "data.image_size=32 metrics=full weights.alex=/nowhere/alex.pth",
            2,
            "weights.alex must be a file",
        ),
        ("metrics.names=[psnr,lpipss]", 2, "unknown metric 'lpipss', did you mean 'lpips'?"),
        (
            "metrics=[psnr,mse]",
            2,
            "unknown metric 'mse', valid are: chroma_error, dists, fid, fvd, lpips",
        ),
        ("metrics=[]", 2, "metrics must name at least one, such as metrics=[psnr]"),
        ("metrics.names=psnr", 2, "metrics must be a list, such as metrics=[psnr], got 'psnr'"),
        ("metrics=[ssim] metrics.best=psnr", 2, "must be one of the metrics (ssim), got 'psnr'"),
        ("metrics=[ms_ssim]", 2, "ms_ssim needs images of at least 176 px, these have 16"),
        ("metrics=[{kind:lpips,net:vgg}]", 2, "unknown key 'net', did you mean 'network'?"),
        ("metrics=[torchmetrics.image:TotalVariation]", 2, "does not rate pairs of samples"),
        ("trainer.devices=1000", 2, "trainer.devices must be at most"),
        ("trainer.num_nodes=0", 2, "trainer.num_nodes must be at least 1, got 0"),
        ("logger=wandbb", 2, "did you mean 'wandb'?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(
    word: str,
    code: int,
    expected: str,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *tiny, *word.split()]) == code
    assert expected in one_line(capsys)
    assert not (tmp_path / "runs").exists()


def test_a_source_without_images_is_named(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    assert main(["train", *tiny, f"data.train={tmp_path}"]) == 2
    assert str(tmp_path) in one_line(capsys)


@pytest.fixture
def finished(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run = tmp_path / "run"
    assert main(["train", *tiny, f"run_dir={run}"]) == 0
    capsys.readouterr()
    return run


@pytest.mark.slow
def test_a_run_directory_with_checkpoints_is_not_written_over(
    finished: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    assert main(["train", *tiny, f"run_dir={finished}"]) == 2
    assert f"resume={finished}" in one_line(capsys)
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_what_a_resumed_run_may_and_may_not_change(
    finished: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"resume={finished}"]) == 0
    assert "is finished at step 4: raise trainer.max_steps" in capsys.readouterr().out
    assert main(["train", f"resume={finished}", "codebook.size=32", "data.flip=false"]) == 2
    message = one_line(capsys)
    assert "codebook.size (16 -> 32)" in message
    assert "data.flip (True -> False)" in message
    assert "init_from=" in message
    assert main(["train", *tiny, "codebook=vq", "codebook.size=16", f"resume={finished}"]) == 2
    assert "codebook.kind (ema -> vq)" in one_line(capsys)
    more = ["trainer.max_steps=6", "trainer.log_every=4", "data.num_workers=1"]
    assert main(["train", f"resume={finished}", *more]) == 0
    assert ", from step 4 on" in capsys.readouterr().out
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 6]


@pytest.mark.slow
def test_a_run_whose_images_were_moved_is_resumed_and_other_images_are_named(
    finished: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(pictures, moved)
    shutil.copytree(pictures, other)
    (other / "picture-07.png").unlink()
    resume = ["train", f"resume={finished}"]
    assert main([*resume, f"data.train={other}", "trainer.max_steps=6"]) == 2
    assert f"cannot change data.train ({pictures} -> {other})" in one_line(capsys)
    assert main([*resume, f"data.train={moved}", "data.batch_size=2", "trainer.max_steps=6"]) == 0
    shown = capsys.readouterr().out
    assert "warning: data.batch_size was 4 and is now 2" in shown
    assert "images of" not in shown
    file = finished / "checkpoints/step_00000006.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    # Four steps of 4 and two of 2; the next one begins with the 21st sample.
    assert (checkpoint["training"]["step"], checkpoint["training"]["samples"]) == (6, 20)
    # A best that no validation reaches is none among other images.
    checkpoint["training"]["best"] = 1000.0
    torch.save(checkpoint, file)
    assert main([*resume, f"data.val={other}", "trainer.max_steps=7"]) == 0
    assert "the images of data.val are not those of the checkpoint" in capsys.readouterr().out
    held = torch.load(finished / "checkpoints/best.ckpt", weights_only=True)["training"]
    assert held["step"] == 7
    assert held["best"] < 100


@pytest.mark.slow
def test_init_from_takes_weights_and_leaves_the_other_run_alone(
    finished: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    words = ["train", *tiny, f"run_dir={new}", f"init_from={finished}", "optim.lr=1.0e-30"]
    assert main([*words, "trainer.ema_decay=0", "codebook.decay=0.999999"]) == 0
    old = Tokenizer.from_pretrained(finished)
    for name, weight in Tokenizer.from_pretrained(new).named_parameters():
        torch.testing.assert_close(weight, old.get_parameter(name), msg=name)
    loaded = (
        f"init_from: {len(old.state_dict())} tensors of codebook, decoder, encoder, project_in "
    )
    assert loaded in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_a_truncated_checkpoint_leads_to_the_one_before_or_is_one_line(
    keep: int, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = finished / "checkpoints/step_00000004.ckpt"
    content = file.read_bytes()[:keep]
    file.unlink()  # last.ckpt is a link to it
    file.write_bytes(content)
    assert main(["train", f"resume={file}"]) == 2
    assert f"cannot read {file}: it is damaged" in one_line(capsys)
    assert file.read_bytes() == content
    assert main(["train", f"resume={finished}"]) == 0
    shown = capsys.readouterr().out
    before = file.with_name("step_00000002.ckpt")
    assert f"warning: {file} cannot be read, so that {before} is the newest" in shown
    assert "resuming at step 2" in shown


@pytest.mark.slow
def test_a_run_directory_in_use_is_named(
    tiny: list[str],
    tmp_path: Path,
    start_vqtrain: Callable[..., subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    process = start_vqtrain("train", *tiny, "trainer.max_steps=100000", f"run_dir={run}")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints/step_00000002.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert main(["train", f"resume={run}"]) == 2
    assert f"{run} is in use by another process" in one_line(capsys)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    # The lock went with the process, however that ended.
    steps = max(int(p.stem[5:]) for p in (run / "checkpoints").glob("step_*"))
    assert main(["train", f"resume={run}", f"trainer.max_steps={steps + 1}"]) == 0


@pytest.mark.slow
def test_no_room_for_a_checkpoint_keeps_the_one_before(
    finished: Path, vqtrain: Run, tmp_path: Path
) -> None:
    file = finished / "checkpoints/step_00000004.ckpt"
    before = {p: p.read_bytes() for p in file.parent.iterdir()}
    room = file.stat().st_size // 2

    def limit() -> None:
        # No file may grow beyond this: what a full disk does, for this process alone.
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = vqtrain("train", f"resume={finished}", "trainer.max_steps=6", preexec_fn=limit)
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert {p: p.read_bytes() for p in file.parent.iterdir()} == before
    shutil.rmtree(tmp_path / "run" / "tokenizer")
    again = vqtrain("train", f"resume={finished}", "trainer.max_steps=6")
    assert again.returncode == 0, again.stderr


def test_images_that_are_all_bad_are_one_line(
    pictures: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    for file in folder.iterdir():
        file.write_bytes(b"not a picture")
    assert main(["train", *tiny, f"data.train={folder}", f"run_dir={tmp_path / 'run'}"]) == 2
    assert "none of 8 images of data.train that were tried can be used" in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_losses_that_are_not_finite_end_the_run_with_a_checkpoint(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["trainer.max_steps=100", "optim.lr=1.0e+30", "trainer.clip=null"]
    assert main(["train", *tiny, *words, f"run_dir={run}"]) == 1
    assert "20 steps in a row had a loss or a gradient that is not finite" in one_line(capsys)
    assert (run / "checkpoints/last.ckpt").exists()
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["trainer.precision=bf16-mixed"],
        ["data.channels=1"],
        ["codebook=vq", "codebook.size=16", "codebook.dim=4", "codebook.l2_normalize=true"],
        ["loss/reconstruction=mix"],
    ],
    ids=lambda words: words[0],
)
def test_each_option_trains(
    words: list[str], tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *tiny, *words, f"run_dir={run}"]) == 0
    assert capsys.readouterr().err == ""
    assert_trained(run)


@pytest.mark.slow
def test_perceptual_terms_are_mixed_logged_and_resumed(
    tiny: list[str],
    tmp_path: Path,
    classifier_file: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    words = ["loss/perceptual=gram", f"weights.vgg={classifier_file('vgg')}"]
    words += ["+loss/perceptual@loss.tokens=dino", "loss.tokens.weight=0.5", "loss.tokens.size=32"]
    words += ["loss.tokens.model=test_vit", "loss.tokens.blocks=[5]", f"weights.perceptual={file}"]
    runs = [tmp_path / "whole", tmp_path / "parts"]
    assert main(["train", *tiny, *words, f"run_dir={runs[0]}"]) == 0
    assert main(["train", *tiny, *words, "trainer.max_steps=2", f"run_dir={runs[1]}"]) == 0
    assert main(["train", f"resume={runs[1]}", "loss.tokens.weight=1"]) == 2
    assert "loss.tokens.weight" in capsys.readouterr().err
    assert main(["train", f"resume={runs[1]}", "trainer.max_steps=4"]) == 0
    whole, parts = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in runs
    )
    for line in (each for each in whole if "train/generator/total" in each):
        names = ("reconstruction", "perceptual", "tokens", "codebook")
        summed = sum(line[f"train/generator/{name}"] for name in names)
        assert line["train/generator/tokens"] > 0
        assert line["train/generator/total"] == pytest.approx(summed, rel=1e-5)
    losses = [{k: v for k, v in line.items() if "generator/" in k} for line in whole]
    assert losses == [{k: v for k, v in line.items() if "generator/" in k} for line in parts]


@pytest.mark.slow
def test_a_deterministic_run_trains(tiny: list[str], tmp_path: Path, vqtrain: Run) -> None:
    run = tmp_path / "run"  # of a process of its own, which stays deterministic
    done = vqtrain("train", *tiny, "trainer.deterministic=true", f"run_dir={run}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_trained(run)


@pytest.mark.slow
def test_a_compiled_game_is_the_same_game(tiny: list[str], tmp_path: Path, vqtrain: Run) -> None:
    words = ["train", *tiny, *GAN.split(), "discriminator.channels=4"]
    # Accumulated, a batch is differentiated twice.
    words += ["loss.adversarial.start_step=1", "trainer.accumulate=2"]
    assert main([*words, f"run_dir={tmp_path / 'plain'}"]) == 0
    # In a process of its own, as checks of shapes cannot be compiled.
    done = vqtrain(*words, "trainer.compile=true", f"run_dir={tmp_path / 'compiled'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_trained(tmp_path / "compiled")
    assert re.search(r"^step 1/4  compiled for \d+\.\d s$", done.stdout, re.MULTILINE)
    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("plain", "compiled")
    ]
    assert lines[0][-1]["train/adversarial/share"] > 0
    for plain, compiled_line in zip(*lines, strict=True):
        assert plain == pytest.approx(compiled_line, rel=1e-3, abs=1e-6)
