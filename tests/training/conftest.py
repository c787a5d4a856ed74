"""A tiny tokenizer in training, its data, and a real Trainer around a few callbacks."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision

from vqtrain.build import configs_folder
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.losses.l2 import L2
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.metrics.parts.build import build_metrics
from vqtrain.objective import Objective, WeightedTerm, build_adversarial
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.checkpoints import Checkpointing, TrainingCheckpoint
from vqtrain.training.console import RunConsole
from vqtrain.training.data_module import TrainingData
from vqtrain.training.launch import quiet_libraries
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.record import Record
from vqtrain.training.settings import TrainerSettings
from vqtrain.training.step_end import StepEnd
from vqtrain.training.stopping import StopPolicy
from vqtrain.training.validation import Validation

TRAINER: dict[str, object] = {
    "max_steps": 4,
    "max_time": None,
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "ddp",
    "precision": "32-true",
    "accumulate": 1,
    "clip": None,
    "memory_format": "auto",
    "checkpoint_activations": "none",
    "compile": False,
    "deterministic": False,
    "freeze": [],
    "ema_decay": 0.5,
    "ema_device": None,
    "log_every": 1,
    "validate_every": 2,
    "checkpoint_every": 2,
    "keep_checkpoints": 3,
    "limit_val": None,
    "profile": False,
}
DISCRIMINATOR = yaml.safe_load((configs_folder() / "loss/discriminator/default.yaml").read_text())
OPTIM: dict[str, object] = {
    "lr": 1e-3,
    "betas": [0.9, 0.99],
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "schedule": "constant",
}
ADVERSARIAL: dict[str, object] = {
    "kind": "hinge",
    "weight": 0.5,
    "adaptive": True,
    "layer": None,
    "min_ratio": 0.0,
    "max_ratio": 100.0,
    "start_step": 0,
    "ramp_steps": 0,
}
DATA: dict[str, object] = {
    "train": "unused",
    "val": "unused",
    "image_size": 16,
    "channels": 3,
    "crop": "resize",
    "flip": False,
    "batch_size": 4,
    "num_workers": 0,
    "sampling": "permuted",
    "range": None,
    "background": "white",
    "max_bad_fraction": 0.01,
}
CODEBOOK: dict[str, object] = {
    "kind": "ema",
    "arguments": {
        "size": 8,
        "dim": 2,
        "decay": 0.9,
        "commitment_weight": 0.25,
        "l2_normalize": False,
        "gradient": "straight_through",
        "kmeans_iterations": 0,
        "restart_below": 0.1,
        "sampling_temperature": 0.0,
    },
}
StepEndFunction = Callable[[Trainer, TokenizerTraining], None]
StartPython = Callable[..., subprocess.Popen[str]]
MakeModule = Callable[..., TokenizerTraining]
MakeData = Callable[..., TrainingData]


@pytest.fixture
def index(pictures: Path) -> SampleIndex:
    """All 48 pictures."""
    return open_samples(str(pictures), role="training")


PARTS = ("encoder.", "decoder.")


@pytest.fixture
def tiny_of(tiny: list[str], videos: Path, sounds: Path) -> Callable[[str], list[str]]:
    """Make overrides like ``tiny`` for another network: ``vit`` or ``latent_query``.

    Or ``magvit2_video``, which is trained on clips, or ``jukebox``, on sounds.
    """

    def words_of(network: str) -> list[str]:
        if network == "vqvae":
            return tiny
        if network == "magvit2_video":
            sizes = ["channels=8", "num_blocks=1", "multipliers=[1,2]", "time_strides=[2]"]
            sizes += ["latent_channels=4"]
            return [
                *(word for word in tiny if not word.startswith(("data.train=", *PARTS))),
                *("data=video", f"data.train={videos}", "data.frames=3", "data.stride=2"),
                *(f"{part}=magvit2_video" for part in ("encoder", "decoder")),
                *(f"{part}.{size}" for part in ("encoder", "decoder") for size in sizes),
            ]
        if network == "jukebox":
            of_images = ("data.train=", "data.image_size=", *PARTS)
            sizes = ["channels=4", "num_blocks=1", "strides=[[2,2]]", "latent_channels=4"]
            return [
                *(word for word in tiny if not word.startswith(of_images)),
                *("data=sound", f"data.train={sounds}", "data.sample_rate=8000", "data.length=256"),
                *(f"{part}=jukebox" for part in ("encoder", "decoder")),
                *(f"{part}.{size}" for part in ("encoder", "decoder") for size in sizes),
                "metrics=[si_sdr]",
            ]
        sizes = ["patch_size=8", "dim=8", "depth=1", "num_heads=2"]
        sizes += ["num_tokens=4"] if network == "latent_query" else []
        words = [word for word in tiny if not word.startswith(PARTS)]
        for part in ("encoder", "decoder"):
            words += [f"{part}={network}", *(f"{part}.{size}" for size in sizes)]
        return words + ["decoder.nested_dropout=uniform"] * (network == "latent_query")

    return words_of


@pytest.fixture
def adversarial_words() -> list[str]:
    """Overrides for a small discriminator and all that is done to steady it."""
    return [
        "discriminator=patchgan",
        "discriminator.channels=4",
        "discriminator.num_layers=1",
        "loss.discriminator.lecam_weight=0.1",
        "loss.discriminator.lecam_decay=0.8",
        "loss.discriminator.augment=0.5",
        "loss.discriminator.consistency_weight=0.5",
        "loss.discriminator.r1_weight=0.1",
        "loss.discriminator.r1_every=3",
        "loss.discriminator.blur_steps=6",
        "latent_noise=nearest_codes",
        "latent_noise.share=0.5",
        "loss.adversarial.weight=0.5",
    ]


@pytest.fixture
def trainer_settings() -> Callable[..., TrainerSettings]:
    """Make settings of a run of four steps, with changes."""

    def make(**changes: object) -> TrainerSettings:
        return TrainerSettings(**{**TRAINER, **changes})  # type: ignore[arg-type]  # plain data

    return make


@pytest.fixture
def make_data(index: SampleIndex) -> MakeData:
    """Make data whose validation is a number of the pictures."""

    def make(*, validation: int = 5, start: int = 0, **changes: object) -> TrainingData:
        return TrainingData(
            training=index,
            validation=index.select(torch.arange(validation).numpy()),
            settings=ImageData(**{**DATA, **changes}),  # type: ignore[arg-type]  # plain data
            seed=0,
            start=start,
            num_nodes=1,
        )

    return make


@pytest.fixture
def make_module(trainer_settings: Callable[..., TrainerSettings]) -> MakeModule:
    """Make a tokenizer of 4 px per token and 8 codes in training, with changes of its settings.

    ``codebook`` replaces its codebook, and with ``adversarial`` it has a discriminator.
    """

    def make(
        *,
        optim: dict[str, object] | None = None,
        channels: int = 3,
        width: int = 4,
        codebook: dict[str, object] | None = None,
        adversarial: dict[str, object] | None = None,
        **trainer: object,
    ) -> TokenizerTraining:
        torch.manual_seed(0)
        sizes = {"channels": width, "block_channels": 2, "num_blocks": 0}
        tokenizer = Tokenizer(
            encoder={
                "kind": "vqvae",
                "arguments": {"in_channels": channels, "num_downsamplings": 2, **sizes},
            },
            codebook=codebook or CODEBOOK,
            decoder={
                "kind": "vqvae",
                "arguments": {"out_channels": channels, "num_upsamplings": 2, **sizes},
            },
            channels=channels,
        )
        discriminator = None
        if adversarial is not None:
            discriminator = PatchGAN(in_channels=channels, channels=4, num_layers=1, norm="group")
        return TokenizerTraining(
            tokenizer=tokenizer,
            objective=Objective(
                terms=[
                    WeightedTerm(
                        loss=L2(),
                        weight=Weight(
                            name="reconstruction", weight=1.0, start_step=0, ramp_steps=0
                        ),
                    )
                ],
                discriminator=discriminator,
                adversarial=build_adversarial(
                    {**ADVERSARIAL, **(adversarial or {})}, DISCRIMINATOR, {}
                ),
            ),
            trainer_settings=trainer_settings(**trainer),
            optim_settings=OptimSettings(**{**OPTIM, **(optim or {})}),  # type: ignore[arg-type]  # plain data
            discriminator_settings=DiscriminatorOptimSettings(**OPTIM, clip=None),  # type: ignore[arg-type]  # plain data
            seed=0,
        )

    return make


@pytest.fixture
def make_bad_samples(tmp_path: Path) -> Callable[[TrainingData], BadSamples]:
    """Make a list of bad samples that says nothing."""

    def make(data: TrainingData) -> BadSamples:
        return BadSamples(path=tmp_path / "bad_samples.jsonl", data=data, say=lambda _: None)

    return make


@pytest.fixture
def make_validation(
    tmp_path: Path, make_bad_samples: Callable[[TrainingData], BadSamples]
) -> Callable[..., Validation]:
    """Make a validation by PSNR and SSIM over some data."""

    def make(data: TrainingData, *, best: str = "psnr") -> Validation:
        metrics = build_metrics(["psnr", "ssim"])
        (chosen,) = (metric for metric in metrics if metric.name == best)
        return Validation(
            data=data,
            metrics=metrics,
            best=chosen,
            images=tmp_path / "images",
            bad_samples=make_bad_samples(data),
        )

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Make a Trainer that leaves nothing behind."""
    quiet_libraries()

    def make(callbacks: Sequence[Callback], precision: str = "32-true") -> Trainer:
        is_half = precision == "16-mixed"  # with Lightning's own scaler
        return Trainer(
            accelerator="cpu",
            devices=1,
            plugins=[MixedPrecision("16-mixed", "cpu")] if is_half else None,
            precision=None if is_half else precision,  # type: ignore[arg-type]  # one of them
            max_steps=-1,
            max_epochs=-1,
            callbacks=list(callbacks),
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    return make


class AtStepEnd(Callback):
    """Calls functions at the end of each step, after the stop policy."""

    def __init__(self, stopping: StopPolicy, functions: Sequence[StepEndFunction]) -> None:
        self.stopping, self.functions = stopping, functions

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self.stopping.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        """Call them."""
        assert isinstance(pl_module, TokenizerTraining)
        if pl_module.step_has_ended:
            trainer.should_stop = self.stopping.decide(pl_module)
            for function in self.functions:
                function(trainer, pl_module)


@pytest.fixture
def fit(
    make_trainer: Callable[..., Trainer],
    make_data: MakeData,
    make_bad_samples: Callable[[TrainingData], BadSamples],
) -> Callable[..., None]:
    """Train until the last step, with callbacks, and functions that are called after each step."""

    def fit(
        module: TokenizerTraining,
        *parts: Callback | StepEndFunction,
        data: TrainingData | None = None,
    ) -> None:
        data = data or make_data()
        stopping = StopPolicy(max_time_s=None, bad_samples=make_bad_samples(data))
        functions = [part for part in parts if not isinstance(part, Callback)]
        callbacks = [part for part in parts if isinstance(part, Callback)]
        module.begin_average()
        module.logs = False
        trainer = make_trainer(
            [AtStepEnd(stopping, functions), *callbacks], module.settings.precision
        )
        trainer.fit(module, datamodule=data)

    return fit


@pytest.fixture
def make_step_end(
    tmp_path: Path,
    make_bad_samples: Callable[[TrainingData], BadSamples],
    make_validation: Callable[..., Validation],
) -> Callable[..., StepEnd]:
    """Make the last callback of a run, from its console, which has the data."""

    def make(
        console: RunConsole,
        *,
        callbacks: Mapping[str, Callback] | None = None,
        checkpoint: TrainingCheckpoint | None = None,
    ) -> StepEnd:
        data = console.data
        bad_samples = make_bad_samples(data)
        callbacks = callbacks or {}
        return StepEnd(
            callbacks=callbacks,
            checkpoint=checkpoint,
            fingerprint=0,
            console=console,
            bad_samples=bad_samples,
            validation=make_validation(data),
            stopping=StopPolicy(max_time_s=None, bad_samples=bad_samples),
            record=Record(path=tmp_path / "metrics.jsonl", console=console, tracker=None),
            checkpointing=Checkpointing(
                run_dir=tmp_path,
                config={"name": "test"},
                data=data,
                callbacks=callbacks,
                resumed=checkpoint["training"] if checkpoint else None,
            ),
        )

    return make


# `vqtrain`, with a note of every batch that trains; Lightning starts it again for other ranks.
NOTING = """
import hashlib, json, os, sys
from vqtrain import distributed
from vqtrain.cli import main
from vqtrain.training.module import TokenizerTraining

step_of = TokenizerTraining.training_step

def note(module, batch, batch_idx):
    pixels = hashlib.sha256(batch.samples.cpu().numpy().tobytes()).hexdigest()
    line = {"step": module.step, "keys": batch.keys, "pixels": pixels}
    with open(f"{os.environ['NOTES']}.{distributed.rank()}", "a") as file:
        file.write(json.dumps(line) + "\\n")
    return step_of(module, batch, batch_idx)

TokenizerTraining.training_step = note
sys.exit(main())
"""


class Noted:
    """Runs in a folder, of which every batch is noted."""

    def __init__(self, start_python: StartPython, folder: Path, words: list[str]) -> None:
        folder.mkdir()
        self.start_python, self.folder, self.words = start_python, folder, words
        self.script = folder / "noting.py"
        self.script.write_text(NOTING)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it, with some words more."""
        return self.start_python(
            *(self.script, "train", "run_dir=run", *self.words, *words),
            variables={"NOTES": str(self.folder / "notes")},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: str) -> str:
        """Let it run to its end, and return what it said."""
        process = self.start(*words)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err + out
        return out

    def notes(self, rank: int) -> list[dict[str, object]]:
        """Return the batches that a rank trained on so far, again where it was killed."""
        file = self.folder / f"notes.{rank}"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def kill_at(self, step: int, *words: str) -> None:
        """Start, and kill every process as soon as the first one has begun a step."""
        process = self.start(*words)
        deadline = time.monotonic() + 120
        while not any(line["step"] == step for line in self.notes(0)[-3:]):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)

    @property
    def checkpoint(self) -> dict[str, object]:
        """The newest checkpoint."""
        return torch.load(self.folder / "run/checkpoints/last.ckpt", weights_only=True)


@pytest.fixture
def noted_run(tmp_path: Path, start_python: StartPython) -> Callable[[str, list[str]], Noted]:
    """Prepare a run in a folder of some name, with some words."""
    return lambda name, words: Noted(start_python, tmp_path / name, words)
