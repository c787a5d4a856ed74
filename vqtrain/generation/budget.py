"""From a budget of operations to the size of a model and the steps of its training."""

import math
from dataclasses import dataclass
from typing import final

from vqtrain.errors import ConfigError, require
from vqtrain.generation.base import TokenModel

MIN_STEPS, MAX_STEPS = 100, 10**9
TOKENS_PER_PARAMETER = 20
LEARNING_RATE_BY_DIM = 0.3
# Parameters of a block of 32 channels: 12 dim^2. With as many times 32 channels as blocks a
# transformer has this many times depth^3.
UNIT = 12 * 32**2


@final
@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a transformer.

    Attributes:
        depth: Blocks.
        dim: Channels.
    """

    depth: int
    dim: int


def sizes_of(budget: float) -> Sizes:
    """Return the sizes of the transformer that a budget of operations trains best, about.

    A parameter costs 6 operations a token, and 20 tokens a parameter are about the best, so
    ``budget`` = 120 parameters^2. The vocabulary is not counted, so that the sizes are the same
    for every tokenizer.

    Raises:
        ConfigError: If the budget is not a positive number.

    References:
        Hoffmann et al. 2022, arXiv:2203.15556, table 3.

    Example:
        >>> sizes_of(1e13), sizes_of(1e16)
        (Sizes(depth=3, dim=96), Sizes(depth=9, dim=288))
    """
    require(0 < budget < math.inf, f"budget must be a positive number of operations, got {budget}")
    parameters = math.sqrt(budget / (6 * TOKENS_PER_PARAMETER))
    depth = max(1, round((parameters / UNIT) ** (1 / 3)))
    return Sizes(depth=depth, dim=32 * max(2, depth))


def learning_rate_of(sizes: Sizes) -> float:
    """Return a learning rate that suits Adam and a transformer of these sizes.

    It falls with the channels, as in Yang et al. 2022, arXiv:2203.03466, where one rate is then
    the best for all sizes.

    Example:
        >>> round(learning_rate_of(Sizes(depth=12, dim=768)), 5)
        0.00039
    """
    return LEARNING_RATE_BY_DIM / sizes.dim


def steps_of(model: TokenModel, budget: float, batch_size: int) -> int:
    """Return how many steps of training a budget of operations buys.

    Raises:
        ConfigError: If they are fewer than 100, where the message names the least budget, or more
            than anyone can do.
    """
    step = model.flops * batch_size
    steps = int(budget // step)
    if steps < MIN_STEPS:
        bought = "1 step" if steps == 1 else f"{steps} steps"
        raise ConfigError(
            f"budget={budget:.2g} buys {bought} of {batch_size} samples of "
            f"{model.form.num_tokens} ids out of {model.form.size}, at least {MIN_STEPS} are "
            f"needed: use budget={_rounded_up(MIN_STEPS * step)} or a smaller batch or model"
        )
    require(
        steps <= MAX_STEPS,
        f"budget={budget:.2g} buys {steps:.1e} steps of {batch_size} samples, at most "
        f"{MAX_STEPS:,} can be done: use a smaller budget or a larger model",
    )
    return steps


def _rounded_up(number: int | float) -> str:
    """Write a number with two digits, not below it.

    Example:
        >>> _rounded_up(1.21e10), _rounded_up(9.99e9)
        ('1.3e+10', '1.0e+10')
    """
    unit = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / unit) * unit:.1e}"
