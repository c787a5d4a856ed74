"""How the processes of a run start: by Lightning's own launcher, torchrun or SLURM."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from subprocess import Popen
from threading import Event, Thread
from typing import Any, final

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.nn.parallel import DistributedDataParallel

from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.ops.memory import keep_freed_memory
from vqtrain.training.settings import TrainerSettings

# After which a rank that waits for another gives up.
TIMEOUT = timedelta(minutes=10)

# Lightning's watcher polls every 5 s and kills; ours must have printed its line by then.
POLL_S, GRACE_S = 0.5, 2.0


def build_trainer(settings: TrainerSettings) -> Trainer:
    """Build Lightning's trainer, which takes this process's rank from the environment.

    It starts other processes in ``fit``, by calling the command line again with ranks in the
    environment.

    Raises:
        ConfigError: If the settings are not those with which torchrun or SLURM started the
            processes.
    """
    check_launch(settings)
    if not settings.uses_gpu:
        keep_freed_memory()
    many = settings.world_size > 1
    # SLURM's signal is handled like any other: the run ends with a checkpoint.
    on_slurm = many and SLURMEnvironment.detect()
    plugins: list[Any] = []
    if on_slurm:
        plugins.append(SLURMEnvironment(auto_requeue=False))
    is_half = settings.precision == "16-mixed"
    if is_half:  # as a plugin, because Lightning refuses the word on a CPU
        plugins.append(MixedPrecision("16-mixed", "cuda" if settings.uses_gpu else "cpu"))
    try:
        trainer = Trainer(
            # Lightning's own "auto" may pick a device without float64, which the metrics need.
            accelerator="gpu" if settings.uses_gpu else "cpu",
            strategy=build_strategy(settings) if many else "auto",
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            plugins=plugins,
            precision=None if is_half else settings.precision,  # type: ignore[arg-type]  # checked
            deterministic=settings.deterministic,
            benchmark=not settings.deterministic,
            max_steps=-1,
            max_epochs=-1,
            logger=False,
            # For the user's callbacks, which ask for them; validation is ours.
            log_every_n_steps=settings.log_every * settings.accumulate,
            val_check_interval=settings.validate_every * settings.accumulate,
            check_val_every_n_epoch=None,  # or an interval of 1 is taken for whole epochs
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        if isinstance(trainer.strategy, DDPStrategy):
            environment = trainer.strategy.cluster_environment
            assert environment is not None, "the trainer has chosen one"
            environment.validate_settings(settings.devices, settings.num_nodes)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot start {settings.world_size} processes: {reason}") from error
    return trainer


@final
class ShardedStrategy(DDPStrategy):
    """Lightning's DDP without torch's around the module, which has split its networks itself.

    Lightning's own for FSDP2, ModelParallelStrategy, takes no float64.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is: it averages its gradients itself."""


def build_strategy(settings: TrainerSettings) -> DDPStrategy:
    """Build what makes the processes train together."""
    if settings.is_sharded:
        return ShardedStrategy(timeout=TIMEOUT)
    return DDPStrategy(
        find_unused_parameters=False,
        broadcast_buffers=False,  # codebooks reduce their own
        gradient_as_bucket_view=True,
        timeout=TIMEOUT,
    )


def check_launch(settings: TrainerSettings) -> None:
    """Compare the processes that torchrun or srun started with those that are configured."""
    variables = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    is_told = all(name in os.environ for name in variables[:2])
    if settings.num_nodes > 1 and not is_told and "SLURM_NTASKS" not in os.environ:
        raise ConfigError(
            f"trainer.num_nodes is {settings.num_nodes}, but this process does not know the "
            "other machines: use torchrun or srun, as scripts/ shows, or set "
            f"{', '.join(variables)} on each machine"
        )
    for launcher, variable in (("torchrun", "WORLD_SIZE"), ("srun", "SLURM_STEP_NUM_TASKS")):
        if launcher == "torchrun" and "TORCHELASTIC_RUN_ID" not in os.environ:
            continue
        started = int(os.environ.get(variable, "1"))
        if started not in (1, settings.world_size):
            raise ConfigError(
                f"{launcher} started {started} processes, but trainer.devices x trainer.num_nodes "
                f"is {settings.devices} x {settings.num_nodes}: make them agree"
            )


def children_of(trainer: Trainer) -> Sequence[Popen[bytes]]:
    """Return the processes that this one has started for the run."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []


@contextmanager
def watched_children(trainer: Trainer, resume: str) -> Iterator[None]:
    """Return a context in which this process ends with a message if one that it started dies.

    A rank may wait for a dead one for ever, without handling signals; Lightning's own watcher ends
    it without a message.

    Args:
        trainer: Of the run.
        resume: How people continue it.
    """
    is_over = Event()
    watcher = Thread(target=_watch, args=(trainer, resume, is_over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _watch(trainer: Trainer, resume: str, is_over: Event) -> None:
    while not is_over.wait(POLL_S):
        for rank, child in enumerate(children_of(trainer), start=1):
            # This process gets time to report the failure itself.
            if child.poll() and not is_over.wait(GRACE_S):
                end_children(trainer, grace_s=0.0)
                sys.stderr.write(f"vqtrain: process {rank} ended with code {child.returncode}: ")
                sys.stderr.write(f"look at what it printed; continue with {resume}\n")
                sys.stderr.flush()
                os._exit(1)


def end_children(trainer: Trainer, *, grace_s: float) -> None:
    """Kill the processes that this one has started and that have not ended by themselves."""
    deadline = time.monotonic() + grace_s
    for child in children_of(trainer):
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S / 10)
        child.kill()


@contextmanager
def rank_named(trainer: Trainer) -> Iterator[None]:
    """Return a context in which errors of other processes than the first one say of which."""
    try:
        yield
    except VqtrainError as error:
        if not trainer.is_global_zero:
            error.args = (f"process {trainer.global_rank} of {trainer.world_size}: {error}",)
        raise


def quiet_libraries() -> None:
    """Silence Lightning's advertisements, and its advice that does not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    # Nothing changes in place what a network returns.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")


def check_trainer(trainer: Trainer, settings: TrainerSettings) -> None:
    """Refuse a trainer, of the user's own, with which a step would not be what the settings say.

    Raises:
        ConfigError: If it is one.
    """
    model, device = trainer.strategy.model, trainer.strategy.root_device.type
    wanted = "cuda" if settings.uses_gpu else "cpu"
    reasons = {
        f"its precision is {trainer.precision}, but trainer.precision={settings.precision}": (
            trainer.precision != settings.precision
        ),
        f"it trains on {device}, but trainer.accelerator stands for {wanted}": device != wanted,
        "trainer.strategy=fsdp goes with the strategy of vqtrain.training.launch alone": (
            isinstance(trainer.strategy, ShardedStrategy) != settings.is_sharded
        ),
        "its DDPStrategy must have broadcast_buffers=False: codebooks reduce their own": (
            isinstance(model, DistributedDataParallel) and model.broadcast_buffers
        ),
        "fit it on a TrainingData, as fit(module, data)": not hasattr(
            trainer.datamodule,  # type: ignore[attr-defined]  # Lightning sets it
            "first_batches",
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise ConfigError(f"cannot train with this Trainer: {reason}")
