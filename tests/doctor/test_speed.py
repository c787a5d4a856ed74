"""How ``vqtrain doctor`` measures a run, and what it concludes."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.planned import build_planned
from vqtrain.app.parts.settings import Settings
from vqtrain.data.loading.batches import TrainingBatches
from vqtrain.data.sources.find import open_samples
from vqtrain.doctor import speed
from vqtrain.doctor.findings import Finding
from vqtrain.doctor.speed import Planned, Rate, describe_workers, measure_steps
from vqtrain.errors import DataError
from vqtrain.training.launch import quiet_libraries

PACK = "vqtrain pack images=IMAGES out=DIR"
Plan = Callable[..., Planned]


@pytest.fixture
def plan(tiny: list[str]) -> Plan:
    """Build a tiny run that is not started."""

    def make(*words: str) -> Planned:
        config = compose("train", read_command_line([*tiny, *words]))
        return build_planned(config, Settings.of(config))

    return make


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves only when it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


@pytest.mark.parametrize(
    ("device", "worker", "needed"),
    [(1000.0, 300.0, 4), (900.0, 300.0, 3), (50.0, 2000.0, 1), (901.0, 300.0, 4)],
)
def test_as_many_workers_as_bring_what_the_device_uses(
    device: float, worker: float, needed: int
) -> None:
    assert speed.workers_needed(device, worker) == needed


@pytest.mark.parametrize(
    ("has", "cores", "mark", "found", "remedy"),
    [
        (4, 8, "ok", "data.num_workers=4 keeps the device busy; it is 4", None),
        (5, 8, "ok", "data.num_workers=4 keeps the device busy; it is 5", None),
        (2, 4, "slow", "data.num_workers=4 keeps the device busy; it is 2", "data.num_workers=4"),
        (
            4,
            2,
            "slow",
            "data.num_workers=4 keeps the device busy; it is 4; this machine has 2 cores",
            f"data.num_workers=2, and smaller pictures, made once: {PACK} image_size=32",
        ),
    ],
)
def test_workers_are_compared_with_the_run_and_the_machine(
    has: int,
    cores: int,
    mark: str,
    found: str,
    remedy: str | None,
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "count_cores", lambda: cores)
    planned = plan(f"data.num_workers={has}")
    # 1000 / 300 is 3.33; pictures of 33 px for a crop of 16 px can be halved.
    finding = describe_workers(planned, device_rate=1000.0, worker_rate=300.0, short_side=33)
    assert finding == Finding(name="workers", found=found, remedy=remedy, is_slow=mark == "slow")
    assert finding.mark == mark


def test_pictures_are_not_made_smaller_where_that_shows_something_else(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "count_cores", lambda: 1)
    for words, short_side in (["data.crop=native"], 500), ([], 32):
        finding = describe_workers(
            plan(*words), device_rate=1000.0, worker_rate=300.0, short_side=short_side
        )
        assert finding.found.endswith("; this machine has 1 core")
        assert finding.remedy == "data.num_workers=1, and more cores"


def test_each_device_has_workers_of_its_own(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "count_cores", lambda: 7)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    # 2 x 4 workers are more than 7 cores; 3 for each are not.
    finding = describe_workers(
        plan("trainer.devices=2"), device_rate=1000.0, worker_rate=300.0, short_side=20
    )
    assert finding.found == (
        "data.num_workers=4 keeps each of 2 devices busy; it is 0; this machine has 7 cores"
    )
    assert finding.remedy == "data.num_workers=3, and more cores"


def timed(step: Callable[[int], None], *, batch_size: int, least: int = 1) -> Rate:
    """Time a step that is made again and again until that is enough."""

    def steps(count: int, until: Callable[[Sequence[float]], bool]) -> list[float]:
        seconds: list[float] = []
        while not seconds or not until(seconds):
            began = time.perf_counter()
            step(count)
            seconds.append(time.perf_counter() - began)
        return seconds

    return measure_steps(steps, batch_size=batch_size, least=least)


@pytest.mark.parametrize(("rate", "slower"), [(128.0, 50), (4.0, 2)])
def test_steps_are_timed_once_they_are_warm(
    rate: float, slower: int, tick: Callable[[float], None]
) -> None:
    made: list[int] = []

    def step(count: int) -> None:
        made.append(count)
        # Slow the first time with each number of images.
        tick(count / rate * (slower if made.count(count) == 1 else 1))

    assert timed(step, batch_size=8) == Rate(images_per_s=rate, batch_size=8)
    assert made[:3] == [1, 1, 8]
    assert 3 < len(made) <= 3 + speed.MAX_STEPS


def test_slow_steps_are_timed_with_fewer_images(tick: Callable[[float], None]) -> None:
    # 2 images/s, so in 5 s there are 10.
    rate = timed(lambda count: tick(count / 2), batch_size=32, least=2)
    assert rate == Rate(images_per_s=2.0, batch_size=10)


def test_a_step_that_was_held_up_is_made_again(tick: Callable[[float], None]) -> None:
    made: list[int] = []

    def step(count: int) -> None:
        made.append(count)
        tick(count / 64 * (100 if len(made) < 3 else 1))

    assert timed(step, batch_size=8) == Rate(images_per_s=64.0, batch_size=8)
    assert made[:4] == [1, 1, 1, 8]


def test_a_step_that_takes_too_long_is_made_once(tick: Callable[[float], None]) -> None:
    made: list[int] = []

    def step(count: int) -> None:
        made.append(count)
        tick(60)

    assert timed(step, batch_size=32, least=2) == Rate(images_per_s=2 / 60, batch_size=2)
    assert made == [2]


def test_images_per_second_are_those_of_one_worker(
    plan: Plan, pictures: Path, tick: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def loader(batches: TrainingBatches, *, num_workers: int) -> Iterator[object]:
        asked.update(settings=batches.settings, num_workers=num_workers)
        for _ in range(100):
            tick(0.5)  # also for the first one, which the worker has to start for
            yield type("Batch", (), {"samples": torch.zeros(3, 3, 16, 16)})()

    monkeypatch.setattr(speed, "Loader", loader)
    planned, index = plan("data.batch_size=100"), open_samples(str(pictures), role="training")
    rate, images = speed.measure_loading(planned, index, seconds=0.01)
    assert rate == 6  # 3 images every half a second
    assert images.shape == (3, 3, 16, 16)
    # A quarter of a second is 25 images of a hundredth.
    assert asked == {"settings": replace(planned.data, batch_size=25), "num_workers": 1}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
def test_a_step_is_that_of_the_run(precision: str, plan: Plan) -> None:
    quiet_libraries()
    planned = plan(f"trainer.precision={precision}", "discriminator=patchgan", "data.image_size=32")
    forward, seen = planned.module.objective.forward, []

    def watch(images: Tensor, *arguments: object, **named: object) -> object:
        terms = forward(images, *arguments, **named)
        seen.append((images.dtype, len(images), terms.total.requires_grad))
        return terms

    planned.module.objective.forward = watch
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    rate = speed.measure_device(planned, images)
    assert rate.batch_size == 4  # of 3 images, one comes twice
    dtype = torch.float64 if precision == "64-true" else torch.float32
    assert {entry[0] for entry in seen} == {dtype}
    assert {entry[1] for entry in seen} == {1, 4} or {entry[1] for entry in seen} == {2, 4}
    assert all(entry[2] for entry in seen)
    # Nothing is kept from one step to the next.
    assert all(p.grad is None for p in planned.module.parameters())


def test_the_network_of_the_perceptual_loss_is_random_where_it_is_not_here(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    words = ["loss/perceptual=lpips", "loss.perceptual.network=squeeze", "data.image_size=32"]
    planned = plan(*words)
    assert planned.remark == "; with random weights of squeeze, whose file is not here"
    network = planned.module.objective.terms["perceptual"].loss.network.network
    assert len(list(network.parameters())) > 0
    assert all(p.isfinite().all() for p in network.parameters())
    planned = plan(*words, "+loss/perceptual@loss.logits=resnet50")
    assert planned.remark == "; with random weights of squeeze, resnet50, whose files are not here"
    assert list(tmp_path.iterdir()) == []
    assert plan("loss/perceptual=none").remark == ""


def test_the_weights_of_the_perceptual_loss_are_used_where_they_are(
    plan: Plan, classifier_file: Callable[[str], Path]
) -> None:
    file = classifier_file("squeeze")
    words = ["loss/perceptual=lpips", "loss.perceptual.network=squeeze", "data.image_size=32"]
    planned = plan(*words, f"weights.squeeze={file}")
    assert planned.remark == ""
    assert "perceptual" in planned.module.objective.terms


def test_what_a_step_leaves_out_is_said(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(
        *("discriminator=patchgan", "data.image_size=32", "loss.adversarial.start_step=2"),
        *("trainer.compile=true", "data.batch_size=12"),
    )
    rate = Rate(images_per_s=8.0, batch_size=2)
    assert speed.describe_device(planned, rate).found == (
        "8 images/s on the CPU: 0.25 s for 2 images of 32 x 32 px, 32-true; 12 at once would have "
        "taken too long to try; less from step 2 on, with the discriminator; not compiled"
    )
    rate = Rate(images_per_s=1234.5, batch_size=12)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    on_gpu = replace(planned, trainer=replace(planned.trainer, accelerator="gpu"))
    assert speed.describe_device(on_gpu, rate).found.startswith(
        "1234 images/s on the GPU: 0.00972 s for 12 images"
    )


def test_a_batch_that_does_not_fit_is_said(
    plan: Plan, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Rate:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed, "measure_loading", lambda *_: (100.0, torch.zeros(1, 3, 16, 16)))
    monkeypatch.setattr(speed, "measure_device", refuse)
    index = open_samples(str(pictures), role="training")
    loading, memory, device = speed.examine_speed(plan(), index, seconds=0.1, short_side=20)
    assert loading.found == "100 images/s for each of data.num_workers"
    assert memory.name == "memory"
    assert device.found == "its memory does not hold a step of 4 images"
    assert device.mark == "missing"


def test_images_that_cannot_be_loaded_are_said(
    plan: Plan, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DataError("100 images in a row cannot be read")

    monkeypatch.setattr(speed, "measure_loading", refuse)
    index = open_samples(str(pictures), role="training")
    (finding,) = speed.examine_speed(plan(), index, seconds=0.1, short_side=20)
    assert finding.found == "100 images in a row cannot be read"
    assert finding.mark == "missing"
