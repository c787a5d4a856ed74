"""Validation against measurements of one image at a time."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from vqtrain.drawing.panels import in_rows
from vqtrain.metrics.psnr import PSNR
from vqtrain.metrics.ssim import SSIM
from vqtrain.ops.pixels import to_images, to_pixels
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.validation import Validation

MakeModule = Callable[..., TokenizerTraining]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_validation(
    make_data: Callable[..., TrainingData],
    make_bad_samples: Callable[[TrainingData], BadSamples],
    tmp_path: Path,
) -> Callable[..., Validation]:
    """Make a validation over a number of pictures, in batches of 4."""

    def make(count: int = 5, **changes: object) -> Validation:
        data = make_data(validation=count, **changes)
        return Validation(
            data=data,
            bad_samples=make_bad_samples(data),
            metrics=[psnr := PSNR(), SSIM()],
            best=psnr,
            images=tmp_path / "images",
        )

    return make


def pictures_of(validation: Validation, count: int) -> Tensor:
    return torch.cat([batch.samples for batch in validation.data.validation_batches()])[:count]


@torch.no_grad()
def one_by_one(tokenizer: Tokenizer, pictures: Tensor) -> dict[str, float]:
    """Measure each picture by itself, in numpy where that is short."""
    psnrs, ssims, ids = [], [], []
    for picture in pictures:
        output = copy.deepcopy(tokenizer).eval()(to_images(picture[None]))
        made = to_pixels(output.samples)
        difference = made[0].numpy().astype(float) - picture.numpy().astype(float)
        psnrs.append(10 * np.log10(255**2 / np.mean(difference**2)))
        ssims.append(SSIM()(made, picture[None]).item())
        ids.append(output.quantized.token_ids.flatten().numpy())
    counts = np.bincount(np.concatenate(ids), minlength=tokenizer.vocab_size)
    shares = counts[counts > 0] / counts.sum()
    return {
        "val/psnr": float(np.mean(psnrs)),
        "val/ssim": float(np.mean(ssims)),
        "val/codebook/usage": float(np.mean(counts > 0)),
        "val/codebook/perplexity": float(np.exp(-np.sum(shares * np.log(shares)))),
        "val/codebook/top1_share": float(shares.max()),
    }


@pytest.mark.parametrize("count", [2, 4, 5, 11])
def test_what_fills_up_the_last_batch_does_not_count(
    count: int,
    make_module: MakeModule,
    make_validation: Callable[..., Validation],
    make_trainer: MakeTrainer,
) -> None:
    module, validation = make_module(), make_validation(count)
    pictures = pictures_of(validation, count)
    # So that many codes are used, and one picture more or less is seen in how much.
    module.tokenizer.codebook.initialize(module.tokenizer.latents(to_images(pictures)))
    results = validation.measure(make_trainer([]), module)
    expected = one_by_one(module.tokenizer, pictures)
    assert expected["val/codebook/perplexity"] > 2
    assert results == pytest.approx(expected, rel=1e-6)
    assert all(isinstance(value, float) for value in results.values())
    assert module.tokenizer.training


def test_the_averaged_weights_are_measured_and_the_own_are_put_back(
    make_module: MakeModule,
    make_validation: Callable[..., Validation],
    make_trainer: MakeTrainer,
) -> None:
    module, validation = make_module(), make_validation()
    module.begin_average()
    averaged = copy.deepcopy(module.tokenizer)
    with torch.no_grad():
        for tensor in module.tokenizer.state_dict().values():
            tensor.add_(torch.randn_like(tensor))
    before = {name: tensor.clone() for name, tensor in module.tokenizer.state_dict().items()}
    places = {name: p.data_ptr() for name, p in module.tokenizer.named_parameters()}
    results = validation.measure(make_trainer([]), module)
    pictures = pictures_of(validation, 5)
    assert results == pytest.approx(one_by_one(averaged, pictures), rel=1e-6)
    assert results != pytest.approx(one_by_one(module.tokenizer, pictures), rel=1e-3)
    for name, tensor in module.tokenizer.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert {name: p.data_ptr() for name, p in module.tokenizer.named_parameters()} == places
    assert module.average is not None
    for name, tensor in module.average.state_dict().items():
        assert torch.equal(tensor, averaged.state_dict()[name]), name


def test_validation_leaves_the_statistics_of_training_alone(
    make_module: MakeModule,
    make_validation: Callable[..., Validation],
    make_trainer: MakeTrainer,
) -> None:
    module = make_module()
    buffers = {name: tensor.clone() for name, tensor in module.tokenizer.named_buffers()}
    make_validation().measure(make_trainer([]), module)
    for name, tensor in module.tokenizer.named_buffers():
        assert torch.equal(tensor, buffers[name]), name


@pytest.mark.parametrize(
    ("count", "batch_size", "shown", "channels"),
    [(5, 4, 4, 3), (2, 4, 2, 3), (12, 12, 8, 3), (5, 4, 4, 1)],
    ids=["batch", "masked", "at-most-8", "gray"],
)
def test_a_picture_has_the_originals_above_the_reconstructions(
    count: int,
    batch_size: int,
    shown: int,
    channels: int,
    make_module: MakeModule,
    make_validation: Callable[..., Validation],
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    module = make_module(channels=channels)
    module.step = 1234
    last = module.tokenizer.decoder.last_layer
    assert isinstance(last, torch.nn.ConvTranspose2d)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([-1.0, 0.2, 1.0][:channels]))
    validation = make_validation(count, batch_size=batch_size, channels=channels)
    validation.measure(make_trainer([]), module)
    (file,) = (tmp_path / "images").iterdir()
    assert file.name == "step_00001234.png"
    picture = np.array(Image.open(file))[:, :, :channels]
    assert picture.shape == (32, 16 * shown, channels)
    originals = pictures_of(validation, shown)
    for number, original in enumerate(originals):
        there = picture[:16, 16 * number : 16 * number + 16]
        assert np.array_equal(there, original.permute(1, 2, 0).numpy())
    # (-1 + 1) * 127.5 = 0, (0.2 + 1) * 127.5 = 153, (1 + 1) * 127.5 = 255.
    assert np.unique(picture[16:].reshape(-1, channels), axis=0).tolist() == [
        [0, 153, 255][:channels]
    ]


def test_clips_are_strips_and_sounds_are_spectrograms(
    make_validation: Callable[..., Validation], tmp_path: Path
) -> None:
    validation = make_validation()
    for step, shape in enumerate([(2, 3, 5, 8, 12), (2, 1, 700)]):
        samples = torch.rand(shape) * 2 - 1
        validation.save_images(samples, -samples, step)
        with Image.open(tmp_path / f"images/step_{step:08d}.png") as picture:
            expected = in_rows(samples, -samples)
            assert np.array_equal(np.asarray(picture), expected)


def test_validation_comes_at_its_interval_and_at_the_last_step(
    make_module: MakeModule,
    make_validation: Callable[..., Validation],
    fit: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqtrain.training.settings.FIRST_STEP", 2)  # instead of 100
    validation = make_validation()
    seen: list[bool] = []
    fit(
        make_module(max_steps=7, validate_every=3),
        validation.measure_if_due,
        lambda *_: seen.append(bool(validation.results)),
    )
    assert seen == [False, True, True, False, False, True, True]
    names = sorted(file.name for file in (tmp_path / "images").iterdir())
    assert names == [f"step_0000000{step}.png" for step in (2, 3, 6, 7)]


def test_other_ranks_write_no_picture(
    make_module: MakeModule,
    make_validation: Callable[..., Validation],
    make_trainer: MakeTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validation = make_validation()
    monkeypatch.setattr("vqtrain.distributed.rank", lambda: 1)
    validation.measure(make_trainer([]), make_module())
    assert not (tmp_path / "images").exists()
