"""A tiny tokenizer in training, its data, and a real Trainer around a few callbacks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from vqtrain.app.train import quiet_libraries
from vqtrain.data.index import ImageIndex
from vqtrain.data.settings import DataSettings
from vqtrain.data.sources import open_images
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.losses.adversarial import AdversarialLoss
from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.objective import Objective
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.callbacks import Stopping
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import TrainerSettings
from vqtrain.training.validation import MEASURES, Validation

TRAINER: dict[str, object] = {
    "max_steps": 4,
    "max_time": None,
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "precision": "32-true",
    "accumulate": 1,
    "clip": None,
    "compile": False,
    "deterministic": False,
    "ema_decay": 0.5,
    "log_every": 1,
    "validate_every": 2,
    "checkpoint_every": 2,
    "keep_checkpoints": 3,
    "limit_val": None,
}
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
}
SIZES = {"channels": 4, "block_channels": 2, "num_blocks": 0}
MakeModule = Callable[..., TokenizerTraining]
MakeData = Callable[..., TrainingData]


@pytest.fixture
def index(pictures: Path) -> ImageIndex:
    """All 48 pictures."""
    return open_images(str(pictures), role="training")


@pytest.fixture
def trainer_settings() -> Callable[..., TrainerSettings]:
    """Make settings of a run of four steps, with changes."""

    def make(**changes: object) -> TrainerSettings:
        return TrainerSettings(**{**TRAINER, **changes})  # type: ignore[arg-type]  # plain data

    return make


@pytest.fixture
def make_data(index: ImageIndex) -> MakeData:
    """Make data whose validation is a number of the pictures."""

    def make(*, validation: int = 5, start: int = 0, **changes: object) -> TrainingData:
        return TrainingData(
            training=index,
            validation=index.select(torch.arange(validation).numpy()),
            settings=DataSettings(**{**DATA, **changes}),  # type: ignore[arg-type]  # plain data
            seed=0,
            start=start,
        )

    return make


@pytest.fixture
def make_module(trainer_settings: Callable[..., TrainerSettings]) -> MakeModule:
    """Make a tokenizer of 4 px per token and 8 codes in training, with changes of its settings.

    With ``adversarial`` it has a discriminator.
    """

    def make(
        *,
        optim: dict[str, object] | None = None,
        channels: int = 3,
        adversarial: dict[str, object] | None = None,
        **trainer: object,
    ) -> TokenizerTraining:
        torch.manual_seed(0)
        tokenizer = Tokenizer(
            encoder={
                "kind": "vqvae",
                "arguments": {"in_channels": channels, "num_downsamplings": 2, **SIZES},
            },
            codebook={
                "kind": "ema",
                "arguments": {
                    "size": 8,
                    "dim": 2,
                    "decay": 0.9,
                    "commitment_weight": 0.25,
                    "restart_below": 0.1,
                },
            },
            decoder={
                "kind": "vqvae",
                "arguments": {"out_channels": channels, "num_upsamplings": 2, **SIZES},
            },
            channels=channels,
        )
        discriminator = None
        if adversarial is not None:
            discriminator = PatchGAN(in_channels=channels, channels=4, num_layers=1, norm="group")
        return TokenizerTraining(
            tokenizer=tokenizer,
            objective=Objective(
                reconstruction=ReconstructionLoss(l1=0.0, l2=1.0, weight=1.0),
                perceptual=None,
                discriminator=discriminator,
                adversarial=AdversarialLoss(**{**ADVERSARIAL, **(adversarial or {})}),  # type: ignore[arg-type]  # plain data
            ),
            trainer_settings=trainer_settings(**trainer),
            optim_settings=OptimSettings(**{**OPTIM, **(optim or {})}),  # type: ignore[arg-type]  # plain data
            discriminator_settings=DiscriminatorOptimSettings(**OPTIM, clip=None),  # type: ignore[arg-type]  # plain data
            seed=0,
        )

    return make


@pytest.fixture
def make_validation(tmp_path: Path) -> Callable[..., Validation]:
    """Make a validation by PSNR and SSIM over some data."""

    def make(data: TrainingData, *, best: str = "psnr") -> Validation:
        pictures = tmp_path / "images"
        return Validation(data=data, measures=MEASURES, fid=None, best=best, pictures=pictures)

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[[Sequence[Callback]], Trainer]:
    """Make a Trainer that leaves nothing behind."""
    quiet_libraries()

    def make(callbacks: Sequence[Callback]) -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=-1,
            max_epochs=-1,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    return make


@pytest.fixture
def fit(
    make_trainer: Callable[[Sequence[Callback]], Trainer], make_data: MakeData
) -> Callable[..., None]:
    """Train until the last step, with callbacks after the one that ends the run."""

    def fit(
        module: TokenizerTraining, *callbacks: Callback, data: TrainingData | None = None
    ) -> None:
        trainer = make_trainer([Stopping(max_time_s=None), *callbacks])
        module.begin_average()
        trainer.fit(module, datamodule=data or make_data())

    return fit
