"""What a run does around its training steps, and in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from lightning.pytorch import Callback, LightningModule, Trainer

from vqtrain import distributed
from vqtrain.errors import ConfigError
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.checkpoints import Checkpointing, TrainingCheckpoint, restore, states_of
from vqtrain.training.console import RunConsole
from vqtrain.training.record import Record
from vqtrain.training.stopping import StopPolicy
from vqtrain.training.trained import RunBatch, Trained, Validator


@final
@dataclass(kw_only=True, eq=False, repr=False)
class StepEnd(Callback):
    """The one callback of a run besides the user's; ``end_step`` states the order of a step's end.

    It is the last of the trainer's callbacks, so that a checkpoint holds what the user's have done
    in its step: Lightning moves its own checkpoint callbacks to the end for the same reason.

    Args:
        callbacks: The user's own, by name; the trainer has them too.
        checkpoint: What a resumed run continues from, or None.
        fingerprint: A hash of all that the ranks must agree on, of at most 62 bits.
        console: Shows progress.
        bad_samples: Lists samples that cannot be read; None where all can be.
        validation: Measures what is trained.
        stopping: Decides when the run ends.
        record: Writes metrics.
        checkpointing: Writes checkpoints.
    """

    callbacks: Mapping[str, Callback]
    checkpoint: TrainingCheckpoint | None
    fingerprint: int
    console: RunConsole
    bad_samples: BadSamples | None
    validation: Validator
    stopping: StopPolicy
    record: Record
    checkpointing: Checkpointing
    is_asked_to_stop: bool = field(default=False, init=False)

    def end_step(self, trainer: Trainer, module: Trained) -> None:
        """Do what is due after an update: validate, decide, record, checkpoint."""
        # 1. The update is done: module.training_step has counted the step, and Lightning has called
        #    on_train_batch_end of the user's callbacks.
        # 2. Validate, so that all that follows knows the results of this step. The user's callbacks
        #    find them in trainer.callback_metrics.
        self.validation.measure_if_due(trainer, module)
        if self.validation.results:
            module.log_dict(self.validation.results, logger=False, batch_size=1)
            for callback in self.callbacks.values():
                callback.on_validation_end(trainer, module)
        # 3. Decide whether the run ends here, so that its last step gets a checkpoint.
        is_asked = self.is_asked_to_stop or trainer.should_stop
        trainer.should_stop = self.stopping.decide(module, is_asked=is_asked)
        # 4. Record the metrics, so that no checkpoint is ahead of metrics.jsonl.
        self.record.write(module, self.validation)
        # 5. Write a checkpoint, from which a resumed run continues with the next update.
        self.checkpointing.save_if_due(module, self.validation, is_last=trainer.should_stop)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the user's callbacks, once each has been set up."""
        del trainer, pl_module, stage
        if self.checkpoint is not None:
            for name, state in self.checkpoint["training"]["callbacks"].items():
                if name in self.callbacks:
                    self.callbacks[name].load_state_dict(state)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the ranks, and restore what a resumed run continues from."""
        del trainer
        assert isinstance(pl_module, Trained)
        if not distributed.all_equal(self.fingerprint, pl_module.device):
            raise ConfigError(
                "the processes of this run do not see the same configuration, images and "
                "checkpoint: give each machine the same command line and the same files"
            )
        if self.checkpoint is not None:
            restore(pl_module, self.checkpoint)
        self.checkpoint = None  # frees its memory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the progress bar."""
        del trainer
        assert isinstance(pl_module, Trained)
        states_of(self.callbacks)  # refuses, before the first step, what a checkpoint cannot hold
        self.stopping.start()
        self.console.start(pl_module.step)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: RunBatch, batch_idx: int
    ) -> None:
        """Note the time, and the samples that were skipped."""
        del trainer, pl_module, batch_idx
        if self.bad_samples is not None:
            self.bad_samples.note("train", batch)
        self.console.begin_batch()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: RunBatch,
        batch_idx: int,
    ) -> None:
        """End the step after its last batch."""
        del outputs, batch_idx
        assert isinstance(pl_module, Trained)
        self.console.end_batch(pl_module.step, images=len(batch.mask))
        if pl_module.step_has_ended:
            if pl_module.compile_clock is not None:
                self.console.show_compiling(pl_module.step, pl_module.compile_clock.take_seconds())
            self.end_step(trainer, pl_module)
        elif trainer.should_stop:  # set by a callback of the user: after this step, not within it
            self.is_asked_to_stop, trainer.should_stop = True, False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the progress bar."""
        del trainer, pl_module
        self.console.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the progress bar, so that what follows is readable."""
        del trainer, pl_module, exception
        self.console.close()
