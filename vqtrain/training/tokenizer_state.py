"""What a checkpoint holds of a tokenizer in training.

Inside it is the tokenizer in the form of a tokenizer directory, so that it can be used without this
package's training code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor

from vqtrain.errors import CheckpointError
from vqtrain.objective import Objective
from vqtrain.optim.average import WeightAverage
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.checkpoints import (
    TrainingCheckpoint,
    TrainingState,
    copy_of,
    optimizer_state,
    read,
)
from vqtrain.training.freezing import FrozenParts
from vqtrain.training.optimizers import TokenizerOptimizers
from vqtrain.training.trained import Contents
from vqtrain.training.window import Window


class DiscriminatorState(TypedDict):
    """What a run with a discriminator continues from."""

    weights: dict[str, Tensor]
    optimizer: dict[str, object]
    adversarial: dict[str, Tensor]


class TokenizerState(TrainingState):
    """The part of a tokenizer's checkpoint that only training needs."""

    weights: dict[str, Tensor]
    optimizer: dict[str, object]
    discriminator: DiscriminatorState | None
    alignment: NotRequired[dict[str, Tensor]]  # not in older files
    balancer: NotRequired[dict[str, Tensor]]
    frozen: NotRequired[str | None]
    window: dict[str, object]


class TokenizerCheckpoint(TypedDict):
    """A checkpoint file of a tokenizer in training."""

    tokenizer: storage.StoredTokenizer
    config: dict[str, object]
    training: TokenizerState


@runtime_checkable
class TokenizerParts(Protocol):
    """What a checkpoint is made of: ``TokenizerTraining`` has all of it.

    Attributes:
        tokenizer: With its own weights.
        average: Of its weights, or None.
        objective: What it minimizes.
        optim: The optimizers.
        frozen: The parts that stay as they are.
        window: What is to be logged.
        device: Where they are.
    """

    tokenizer: Tokenizer
    average: WeightAverage | None
    objective: Objective
    optim: TokenizerOptimizers
    frozen: FrozenParts
    window: Window

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def begin_average(self) -> None:
        """Start the average of the weights at the current weights."""


def read_training(file: Path, *, mmap: bool = False) -> TrainingCheckpoint:
    """Read a checkpoint from which the training of a tokenizer can continue; see ``read``.

    Raises:
        CheckpointError: If it is damaged, or of another kind of run.
    """
    checkpoint = read(file, mmap=mmap)
    if "tokenizer" not in checkpoint:
        raise CheckpointError(
            f"cannot continue from {file}: it holds no tokenizer; a model over token ids is "
            "continued by the same vqtrain probe that began it"
        )
    return checkpoint


def collect(parts: TokenizerParts, summary: Mapping[str, object]) -> Contents:
    """Collect what a checkpoint holds; see ``Trained.contents``."""
    tokenizer, alignment = parts.tokenizer, parts.objective.alignment
    balancer = parts.objective.balancer
    parts.window.gather()
    raw = copy_of(tokenizer.state_dict())
    weights = copy_of(parts.average.state_dict()) if parts.average else raw
    tokenizer.training_summary = dict(summary)
    return Contents(
        result={"tokenizer": {"config": storage.stamped(tokenizer.config), "weights": weights}},
        state={
            "weights": raw,
            "frozen": parts.frozen.digest,
            "optimizer": optimizer_state(parts.optim.generator),
            "discriminator": discriminator_state(parts),
            "alignment": {} if alignment is None else copy_of(alignment.state_dict()),
            "balancer": {} if balancer is None else copy_of(balancer.state_dict()),
            "window": parts.window.state_dict(),
        },
    )


def discriminator_state(parts: TokenizerParts) -> DiscriminatorState | None:
    """Collect the state of the discriminator, if there is one."""
    objective, optimizer = parts.objective, parts.optim.discriminator
    if optimizer is None or objective.discriminator is None:
        return None
    return {
        "weights": copy_of(objective.discriminator.state_dict()),
        "optimizer": optimizer_state(optimizer),
        "adversarial": copy_of(objective.adversarial.state_dict()),
    }


def load(parts: TokenizerParts, checkpoint: TokenizerCheckpoint) -> None:
    """Continue from a checkpoint."""
    state, objective, optim = checkpoint["training"], parts.objective, parts.optim
    parts.tokenizer.load_weights(state["weights"])
    parts.frozen.digest = state.get("frozen")
    parts.begin_average()
    if parts.average is not None:
        parts.average.load_state_dict(checkpoint["tokenizer"]["weights"])
    optim.generator.load_state_dict(state["optimizer"])
    if optim.discriminator is not None:
        saved = state["discriminator"]
        assert saved is not None, "a resumed run cannot change its discriminator"
        assert objective.discriminator is not None
        objective.discriminator.load_state_dict(saved["weights"])
        optim.discriminator.load_state_dict(saved["optimizer"])
        objective.adversarial.load_state_dict(saved["adversarial"])
    if objective.alignment is not None:
        objective.alignment.load_state_dict(state["alignment"])
    if objective.balancer is not None:
        objective.balancer.load_state_dict(state["balancer"])
    parts.window.load_state_dict(state["window"], parts.device)
