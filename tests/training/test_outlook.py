"""What a run says before its first step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.data.sources.find import open_samples, training_and_validation
from vqtrain.data.sources.pipes import Stream
from vqtrain.optim.settings import OptimSettings
from vqtrain.training.data_module import TrainingData
from vqtrain.training.outlook import count_shared, describe_data, describe_length, warnings_of
from vqtrain.training.settings import TrainerSettings

OPTIM = OptimSettings(
    lr=1.0, betas=[0.9, 0.9], weight_decay=0.0, warmup_steps=0, schedule="constant"
)


@pytest.fixture
def told(
    make_data: Callable[..., TrainingData], trainer_settings: Callable[..., TrainerSettings]
) -> Callable[..., list[str]]:
    """Return what a run of 8 steps says of images."""

    def tell(train: str, val: str = "auto", warmup_steps: int = 1, **changes: object) -> list[str]:
        data = make_data(train=train, val=val, **changes)
        data.training, data.validation = training_and_validation(train, val)
        trainer = trainer_settings(max_steps=8, accumulate=2)
        optim = replace(OPTIM, warmup_steps=warmup_steps)
        return [
            *describe_data(data),
            describe_length(data, trainer),
            *warnings_of(data, trainer, optim),
        ]

    return tell


@pytest.fixture
def photographs(tmp_path: Path) -> str:
    """Twelve images of 24 x 20 px, and files that are none."""
    for number in range(12):
        Image.new("RGB", (24, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "a.avif").write_bytes(b"x")
    return str(tmp_path)


def test_images_and_epochs_are_counted(photographs: str, told: Callable[..., list[str]]) -> None:
    # 8 steps x 2 accumulated x 2 images of 6, half of which are held out.
    assert told(photographs, batch_size=2) == [
        "data: 6 training images, 6 validation images, 16 x 16 px",
        "data.train: 1 file is neither an image nor a tar: .avif 1",
        "length: 8 steps of 4 images, 5.3 epochs",
    ]
    # Where it is named, that side is counted, too; 12 images are then trained on.
    lines = told(photographs, f"{photographs}/[01]*", batch_size=6)
    assert lines[0] == "data: 12 training images, 4 validation images, 16 x 16 px"
    assert lines[2] == "length: 8 steps of 12 images, 8.0 epochs"
    assert told(photographs, photographs, batch_size=6)[2].startswith("data.val: 1 file is neither")


def test_what_does_not_fit_the_images_is_named(
    photographs: str, told: Callable[..., list[str]]
) -> None:
    lines = told(photographs, f"{photographs}/../{Path(photographs).name}/1*", 0, image_size=32)
    enlarged, shared, few = lines[3:]
    assert enlarged == (
        "12 of 12 training images that were looked at are enlarged to data.image_size=32, the "
        "smallest from 20 px: vqtrain doctor images=... proposes a size"
    )
    assert shared.startswith("3 of 3 validation images are training images, too, ")
    assert few.startswith("12 training images are few, and optim.warmup_steps is 0: 5% is")
    (large,) = told(photographs, batch_size=4)[3:]
    assert large.startswith("a step takes 8 images, more than the 6 there are, ")


@pytest.mark.parametrize(
    ("precision", "dtype", "instructions"),
    [("bf16-mixed", "bfloat16", "amx_bf16"), ("16-mixed", "float16", "avx512_fp16")],
)
def test_a_cpu_that_imitates_half_precision_is_named(
    precision: str,
    dtype: str,
    instructions: str,
    make_data: Callable[..., TrainingData],
    trainer_settings: Callable[..., TrainerSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = make_data()
    data.training = Stream(commands=("cat a.tar",))
    for there, expected in ({"avx2": True}, 1), ({instructions: True, "avx2": True}, 0):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: there)
        said = list(warnings_of(data, trainer_settings(precision=precision), OPTIM))
        assert len(said) == expected
        assert all(f"no instructions for {dtype}, which" in line for line in said)
        assert list(warnings_of(data, trainer_settings(), OPTIM)) == []


def test_of_images_in_sequence_the_length_is_in_steps(
    make_data: Callable[..., TrainingData], trainer_settings: Callable[..., TrainerSettings]
) -> None:
    data, trainer = make_data(), trainer_settings(max_steps=8)
    data.training = Stream(commands=("cat a.tar",))
    assert next(describe_data(data)).startswith("data: 1 training shards in sequence, 5 validation")
    assert describe_length(data, trainer) == "length: 8 steps of 4 images"
    assert list(warnings_of(data, trainer, OPTIM)) == []
    (alone,) = warnings_of(data, trainer_settings(strategy="fsdp"), OPTIM)
    assert alone.startswith("trainer.strategy=fsdp splits the networks over the processes of a run")


def test_images_of_one_tar_are_told_apart_by_their_place(photographs: str) -> None:
    index = open_samples(photographs, role="training")
    tar = replace(index, paths=("/a.tar",), path_ids=index.path_ids * 0, offsets=np.arange(12))
    first, last = tar.select(np.arange(8)), tar.select(np.arange(6, 12))
    assert count_shared(first, last) == 2
    assert count_shared(first, index) == 0
