"""What a training step of vqtrain consists of: its parts, its arithmetic, and what is around it."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from functools import wraps
from io import StringIO
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, final
from unittest.mock import patch

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from step_contenders import SETTINGS, Case, Ours, now
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vqtrain.app.parts import training
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings
from vqtrain.evaluation.comparison import Comparison
from vqtrain.ops.profiling import STEP, Call, marked, profiler, time_by_part
from vqtrain.training.accumulation import Accumulation
from vqtrain.training.checkpoints import Checkpointing
from vqtrain.training.launch import quiet_libraries
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.record import Record
from vqtrain.training.step_end import StepEnd
from vqtrain.training.validation import Validation
from vqtrain.weights import without_downloads

# Published peaks of dense products in 10^12 operations per second, in bf16 and in TF32, which
# torch uses for float32 convolutions; by a part of the name that torch gives the device.
PUBLISHED = {
    "B200": (2250.0, 1125.0),
    "H200": (989.4, 494.7),
    "H100 PCIe": (756.0, 378.0),
    "H100": (989.4, 494.7),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
    "L4": (121.0, 60.0),
    "A40": (149.7, 74.8),
    "A10": (125.0, 62.5),
    "RTX A6000": (154.8, 77.4),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}
TIMED_STEPS = 3
# Of a run by which the costs around a step are found, with two lines, validations and checkpoints.
RUN_STEPS = 6
# Largest number of images that data.val=auto holds out.
HELD_OUT = 5000


@final
class Parts(Callback):
    """Records the steps after the first one, as ``trainer.profile=true`` does.

    Args:
        ours: What trains.
    """

    def __init__(self, ours: Ours) -> None:
        self._module = ours.module
        self._record, self._marks, self._step = profiler(), ExitStack(), ExitStack()
        self._steps = 0

    @property
    def seconds(self) -> dict[str, float]:
        """The time of each part of a step, both passes together."""
        return {part: time.total for part, time in time_by_part(self._record).items()}

    def on_train_batch_end(self, *_arguments: object) -> None:
        """End a step, and begin the next one."""
        self._step.close()
        if self._steps == 0:
            module = self._module
            window = [(module.batches, "report"), (module.window, "add_step")]
            logging = [Call(part="logging", owner=owner, method=method) for owner, method in window]
            self._marks.enter_context(marked([*module.calls(), *logging]))
            self._marks.enter_context(self._record)
        if self._steps == TIMED_STEPS:
            self._marks.close()
        else:
            self._step.enter_context(record_function(STEP))
        self._steps += 1


def parts_of(ours: Ours) -> dict[str, float]:
    """Measure the seconds of each part of a step, apart from the steps that are compared."""
    parts = Parts(ours)
    ours.turn(lambda seconds: len(seconds) > TIMED_STEPS, parts)
    return parts.seconds


@final
class Products(TorchDispatchMode):
    """Counts the arithmetic of convolutions and matrix products, of both passes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204  # torch has no types for it
        """Count an operation, if it is such a product."""
        del types
        outputs = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            count = flop_registry[func.overloadpacket]
            self.operations += count(*args, **(kwargs or {}), out_val=outputs)
        return outputs


@final
class Counter(Callback):
    """Counts the arithmetic of a step."""

    def __init__(self) -> None:
        self.products = Products()

    def on_train_batch_start(self, *_arguments: object) -> None:
        """Begin to count."""
        self._counting = ExitStack()
        # Attention by plain products, which are counted on every device.
        self._counting.enter_context(sdpa_kernel(SDPBackend.MATH))
        self._counting.enter_context(self.products)

    def on_train_batch_end(self, *_arguments: object) -> None:
        """End it."""
        self._counting.close()


def arithmetic_of(ours: Ours) -> int:
    """Count the additions and multiplications of the products in a step, both passes."""
    counter = Counter()
    ours.turn(lambda _seconds: True, counter)
    return counter.products.operations


def peak_flops(precision: str, device: str) -> tuple[float, str]:
    """Return the largest number of operations per second here, and where it is from."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        for part, peaks in PUBLISHED.items():
            if part in name:
                return peaks[precision == "32-true"] * 1e12, "published"
    dtype = torch.float32 if precision == "32-true" else torch.bfloat16
    side = 2048 if device == "cpu" else 8192
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    maps = torch.randn(2, 256, 64, 64, device=device, dtype=dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    kernels = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    works: list[tuple[Callable[[], Tensor], float]] = [
        (lambda: matrix @ matrix, 2.0 * side**3),
        (lambda: F.conv2d(maps, kernels, padding=1), 2.0 * kernels.numel() * 2 * 64 * 64),
    ]
    best = 0.0
    for work, operations in works:
        work()
        for _ in range(10):
            began = now(device)
            work()
            best = max(best, operations / (now(device) - began))
    return best, "measured"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a run does around its steps, in seconds.

    Attributes:
        image: Of a step, for each of its images; what the others are compared with.
        step: After every step.
        line: For a line of metrics.
        checkpoint: For a checkpoint.
        networks: For the networks of a validation, for each image.
        metrics: For the metrics of a validation, for each image.
    """

    image: float
    step: float
    line: float
    checkpoint: float
    networks: float
    metrics: float

    def shares(self, case: Case) -> dict[str, float]:
        """Return what each takes of the time of steps, at the intervals of the experiment."""
        words = [f"experiment={SETTINGS[case.setting].experiment}", "data.train=demo"]
        settings = Settings.of(compose("train", read_command_line(words)))
        trainer, step = settings.trainer, case.batch_size * self.image
        trained = trainer.validate_every * settings.data.batch_size * self.image
        return {
            "logging and progress": (self.step + self.line / trainer.log_every) / step,
            "checkpoints": self.checkpoint / (trainer.checkpoint_every * step),
            "metrics of validation": HELD_OUT * self.metrics / trained,
            "networks in validation": HELD_OUT * self.networks / trained,
        }


def measure_costs(case: Case) -> Costs:
    """Make a short run of a case, with all that a run has, and time what is not its steps."""
    quiet_libraries()
    found: dict[str, list[float]] = defaultdict(list)
    images = 0

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(owner: Any, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401  # any method
            nonlocal images
            if isinstance(owner, Validation):
                images = len(owner.data.validation)
            began = now(case.device)
            try:
                return function(owner, *arguments, **more)
            finally:
                found[name].append(now(case.device) - began)

        return call

    every = RUN_STEPS // 2
    with TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(redirect_stdout(StringIO()))
        stack.enter_context(without_downloads())
        stack.enter_context(patch.object(training, "write_report"))
        stack.enter_context(patch.object(TokenizerTraining, "initialize_codebook"))
        for owner, name in (
            (Accumulation, "report"),
            (TokenizerTraining, "training_step"),
            (StepEnd, "on_train_batch_start"),
            (StepEnd, "on_train_batch_end"),
            (Validation, "measure_if_due"),
            (Record, "write"),
            (Checkpointing, "save_if_due"),
            (Comparison, "add"),
        ):
            stack.enter_context(patch.object(owner, name, timed(name, getattr(owner, name))))
        words = case.words(
            f"run_dir={folder}/run",
            f"trainer.max_steps={RUN_STEPS}",
            *(f"trainer.{each}_every={every}" for each in ("log", "validate", "checkpoint")),
            "data.num_workers=0",  # no worker outlives the run
        )
        command_line = read_command_line(words)
        training.train(command_line, words, compose("train", command_line))
    plain = [step for step in range(RUN_STEPS) if (step + 1) % every]
    around = ("measure_if_due", "write", "save_if_due")
    own = [
        found["report"][step]
        + found["on_train_batch_start"][step]
        + found["on_train_batch_end"][step]
        - sum(found[name][step] for name in around)
        for step in plain
    ]
    # The first of each is slower, as it makes what the others use again.
    metrics = sum(found["add"][len(found["add"]) // 2 :])
    return Costs(
        image=median(found["training_step"][1:]) / case.batch_size,
        step=median(own),
        line=found["write"][-1],
        checkpoint=found["save_if_due"][-1],
        networks=(found["measure_if_due"][-1] - metrics) / images,
        metrics=metrics / images,
    )
