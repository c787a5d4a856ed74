"""``vqtrain discretize``: from a continuous tokenizer to ids, in stages that are each done once."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from filelock import FileLock

from vqtrain import Tokenizer
from vqtrain.app.parts.discretizing import stages
from vqtrain.app.parts.discretizing.words import of_codebook, of_decoder
from vqtrain.build import config_of
from vqtrain.cli import main
from vqtrain.data.tokens.write import write
from vqtrain.launchers.base import Ended, Job
from vqtrain.tokenizer.discretized import compose

KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1.0}}
NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
QUICK = [
    *("data.batch_size=4", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.log_every=1"),
    *("trainer.validate_every=2", "trainer.checkpoint_every=2", "metrics=[psnr,ssim]"),
]
STEPS = 20  # of a training that is killed
SMALL = [*QUICK, "trainer.max_steps=4", "decoder.channels=8", "decoder.num_blocks=1"]


def make_tokenizer(**changes: Any) -> Tokenizer:
    torch.manual_seed(0)
    parts = {
        "encoder": {"kind": "vqvae", "arguments": {"in_channels": 3, "num_downsamplings": 2}},
        "codebook": KL,
        "decoder": {"kind": "vqvae", "arguments": {"out_channels": 3, "num_upsamplings": 2}},
    }
    for part in ("encoder", "decoder"):
        parts[part]["arguments"] |= NETWORK
    made = Tokenizer(**{**parts, **changes}, channels=3, training={"image_size": 16})
    with torch.no_grad():
        made.project_in.weight.mul_(30)  # so that latents differ
    return made.eval()


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path) -> list[str]:
    """Be in a folder that holds a continuous tokenizer, and train in this process."""
    monkeypatch.chdir(tmp_path)
    make_tokenizer().save_pretrained("kl")
    return ["discretize", "tokenizer=kl", f"data.train={pictures}", f"data.val={pictures}"]


class Here:
    """Takes the place of the launcher, runs jobs in this process and notes their names."""

    begun: ClassVar[list[str]] = []

    def __init__(self, **_: object) -> None: ...

    def launch(self, jobs: list[Job], *, done: Callable[[Job, Ended], None], **_: object) -> None:
        """Run the one job."""
        (job,) = jobs
        self.begun.append(job.name)
        done(job, Ended(code=main(job.commands[0]), reason="the log says it"))


def ids_of(folder: str) -> torch.Tensor:
    tokenizer = Tokenizer.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    return tokenizer.encode(torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1)


@pytest.mark.slow
def test_each_stage_is_done_once_whatever_interrupts(words, monkeypatch, capsys):
    monkeypatch.setattr(stages, "Local", Here)
    monkeypatch.setattr(Here, "begun", [])
    words += [*SMALL, "codebook=fsq", "codebook.size=64", "decoder_steps=2"]
    written, measured = [], []

    def noted_write(plan: Any, **options: Any) -> object:
        written.append(options["out"].name)
        return write(plan, **options)

    measure = stages.measure_model

    def noted_measure(model: Any, *arguments: Any, **options: Any) -> object:
        measured.append(model.name)
        if len(measured) in (1, 3, 5):  # at first, after the codebook, after the decoder
            raise KeyboardInterrupt
        return measure(model, *arguments, **options)

    monkeypatch.setattr(stages, "write", noted_write)
    monkeypatch.setattr(stages, "measure_model", noted_measure)
    codes = [main(words) for _ in range(4)]
    assert codes == [130, 130, 130, 0]
    shown = capsys.readouterr().out
    assert "stopped: run the same command again to continue" in shown
    assert f"{Path('discretized/tokenizer')}, 64 ids" in shown
    assert Here.begun == ["codebook", "decoder"]
    assert [name for number, name in enumerate(measured, 1) if number not in (1, 3, 5)] == [
        *("continuous", "with the codebook", "decoder trained"),
    ]
    out = Path("discretized")
    assert {path.name for path in out.iterdir() if path.suffix != ".lock"} >= {
        *("latents", "codebook", "composed", "decoder", "tokenizer"),
        *("discretize.json", "table.md"),
    }
    results = json.loads((out / "discretize.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == ["continuous", "with the codebook", "decoder trained"]
    assert rows["continuous"]["bits_per_pixel"] is None
    assert rows["decoder trained"]["bits_per_pixel"] == pytest.approx(6 / 16)
    table = (out / "table.md").read_text().splitlines()
    assert table[0] == "| | bits/px | PSNR (dB) | PSNR lost | SSIM | SSIM lost |"
    psnr = [rows[name]["metrics"]["psnr"] for name in rows]
    assert f"| {psnr[1]:.4f} | {psnr[0] - psnr[1]:.4f} |" in table[3]
    # The codebook is that of the latents, and training the decoder changes no id.
    by_hand = compose(
        Tokenizer.from_pretrained("kl"), Tokenizer.from_pretrained("discretized/codebook")
    )
    by_hand.save_pretrained("by-hand")
    ids = ids_of("by-hand")
    assert len(ids.unique()) > 2
    assert torch.equal(ids_of("discretized/composed"), ids)
    assert torch.equal(ids_of("discretized/tokenizer"), ids)
    final = Tokenizer.from_pretrained("discretized/tokenizer")
    assert final.training_summary["discretized"]["metrics"]["continuous"]["psnr"] == psnr[0]
    assert main(words) == 0  # there is nothing left to do
    assert Here.begun == ["codebook", "decoder"]
    other = [word.replace("codebook.size=64", "codebook.size=256") for word in words]
    assert main(other) == 2
    assert (
        "was begun with other keys of the codebook: codebook.size=64, not codebook.size=256"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_kill_within_a_training_changes_nothing_and_repeats_nothing(words, start_vqtrain):
    words += [word.replace("_every=2", "_every=5").replace(",ssim", "") for word in QUICK]
    words += [f"trainer.max_steps={STEPS}", f"decoder_steps={STEPS}", "codebook=fsq"]
    words += ["codebook.size=64", "decoder.channels=8", "decoder.num_blocks=1"]

    def run(*more: str) -> None:
        process = start_vqtrain(*words, *more)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors

    out, before = Path("discretized"), dict[Path, int]()
    for stage, earlier in (("codebook", ["latents"]), ("decoder", ["codebook", "composed"])):
        process, deadline = start_vqtrain(*words), time.monotonic() + 120
        while not [*out.glob(f"{stage}/checkpoints/step_*.ckpt")]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with FileLock(out / stage / ".lock", timeout=60):  # its child ends after it
            assert stages.last_step(out / stage) < STEPS
        files = [file for name in earlier for file in (out / name).rglob("*") if file.is_file()]
        before |= {file: file.stat().st_mtime_ns for file in files}
    run()
    assert {file: file.stat().st_mtime_ns for file in before} == before
    for stage in ("codebook", "decoder"):
        lines = (out / stage / "metrics.jsonl").read_text().splitlines()
        trained = [
            line["step"] for line in map(json.loads, lines) if "train/generator/total" in line
        ]
        assert trained == [*range(1, STEPS + 1)]
    run("out=unbroken")
    tables = [json.loads(Path(each, "discretize.json").read_text()) for each in (out, "unbroken")]
    assert tables[0]["rows"] == tables[1]["rows"]
    weights = [
        Tokenizer.from_pretrained(f"{each}/tokenizer").state_dict() for each in (out, "unbroken")
    ]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_a_gaussian_codebook_takes_the_place_of_kl_without_training(
    words, monkeypatch, capsys, pictures
):
    monkeypatch.setattr(stages, "Local", Here)
    monkeypatch.setattr(Here, "begun", [])
    words += [*QUICK, "codebook=gaussian", "codebook.size=64", "codebook.num_codebooks=2"]
    assert main([*words, "decoder_steps=0"]) == 0
    assert Here.begun == []
    assert "| with the codebook | 0.7500 |" in capsys.readouterr().out
    before = Tokenizer.from_pretrained("kl").state_dict()
    after = Tokenizer.from_pretrained("discretized/tokenizer")
    assert after.codebook.dim == 4
    rows = json.loads(Path("discretized", "discretize.json").read_text())["rows"]
    assert after.training_summary["metrics"]["val/psnr"] == rows[-1]["metrics"]["psnr"]
    for name, tensor in after.state_dict().items():
        assert name.startswith("codebook.") or torch.equal(tensor, before[name])
    words = [f"images={pictures}", "out=measured", "device=cpu", "num_workers=0"]
    words += ["metrics=[psnr]", "baselines=false", "cost=false"]
    assert main(["evaluate", "tokenizer=discretized/tokenizer", *words]) == 0
    psnr = [f"{row['metrics']['psnr']:.4f}" for row in rows]
    line = f"discretized from kl, which is continuous: psnr {psnr[0]} -> {psnr[1]}, ssim "
    assert f"\n{line}" in capsys.readouterr().out


def test_words_go_to_the_training_that_they_are_of():
    given = [
        *("codebook=fsq", "~codebook.dim", "optim.lr=1", "optim.discriminator.lr=2", "seed=3"),
        *("loss/perceptual=lpips", "trainer.max_steps=5", "trainer.precision=bf16-mixed"),
        *("data.train=a", "data.batch_size=2", "data.crop=native", "decoder.channels=8"),
    ]
    both = ["seed=3", "trainer.precision=bf16-mixed", "data.batch_size=2"]
    assert sorted(of_codebook(given)) == sorted(
        [
            *("codebook=fsq", "~codebook.dim", "optim.lr=1", "trainer.max_steps=5"),
            *("decoder.channels=8", *both),
        ]
    )
    assert sorted(of_decoder(given)) == sorted(
        [
            *("optim.discriminator.lr=2", "loss/perceptual=lpips", "data.train=a"),
            *("data.crop=native", *both),
        ]
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["tokenizer=nowhere"], "no tokenizer at nowhere"),
        (["tokenizer=tokens"], "tokenizer=tokens has token ids already, of codebook=fsq"),
        (["codebook=kl"], "codebook=kl has no ids: choose one that has"),
        (["codebook=vqq"], "unknown codebook 'vqq'"),
        (["codebook.size=300", "codebook=fsq"], "there are no levels for size=300"),
        (
            ["tokenizer=exact", "codebook=gaussian"],
            "codebook=gaussian reads means and log-variances, and this tokenizer is deterministic",
        ),
        (["encoder=vqvae"], "encoder is set by vqtrain discretize: that of the tokenizer stays"),
        (["run_dir=a"], "run_dir is set by vqtrain discretize: give out; leave it out"),
        (["decoder_steps=-1"], "decoder_steps must be at least 0, got -1"),
        (["metrics=[fid]"], "metrics: rfid is of all images together"),
        (["decoder=cnn"], "the decoder multiplies it by 16 x 16: make them equal"),
        (["data.image_size=18"], "does not divide into tokens of 4 x 4"),
        (["data.train=nowhere"], "data.train: nowhere does not exist"),
        (["out=kl"], "out=kl is not of vqtrain discretize: give another folder"),
        (["data=sound"], "data=sound: latents are of images, for a tokenizer of images"),
        (["decodr_steps=3"], "unknown key 'decodr_steps', did you mean 'decoder_steps'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words, capsys, changed, message):
    if changed[0] == "tokenizer=tokens":
        fsq = {"kind": "fsq", "arguments": {"size": 64, "levels": None, "eps": 1e-3}}
        make_tokenizer(codebook=fsq).save_pretrained("tokens")
    if changed[0] == "tokenizer=exact":
        continuous = {"kind": "continuous", "arguments": {"size": None, "dim": 4}}
        make_tokenizer(codebook=continuous).save_pretrained("exact")
    capsys.readouterr()
    assert main([*words, *QUICK, *changed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("discretized").exists()


def test_help_shows_every_key_and_two_examples(capsys):
    assert main(["discretize", "--help"]) == 0
    shown = capsys.readouterr().out
    for key in yaml.safe_load(config_of("command", "discretize").read_text()):
        assert f"\n  {key} " in shown
    assert shown.count("  vqtrain discretize tokenizer=") == 2
