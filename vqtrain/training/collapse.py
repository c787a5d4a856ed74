"""A hint for a codebook that has collapsed."""

from collections.abc import Mapping
from typing import final

from vqtrain.metrics.parts.codebook_usage import is_collapsed

# Logged lines in a row before the hint: most codebooks begin with a few codes.
LINES_BEFORE_HINT = 3

USAGE, PERPLEXITY = "train/codebook/usage", "train/codebook/perplexity"


@final
class CollapseHint:
    """Notices a codebook of which hardly any code is used, once until it recovers."""

    def __init__(self) -> None:
        self.lines = 0

    def of(self, values: Mapping[str, float], size: int, tokens: int) -> str | None:
        """Return a hint, or None if there is no collapse or it has been reported.

        Args:
            values: Training metrics since the last line.
            size: Ids of a codebook.
            tokens: Tokens of a codebook since the last line.
        """
        usage, perplexity = values.get(USAGE), values.get(PERPLEXITY)
        if usage is None or perplexity is None:
            return None
        self.lines = self.lines + 1 if is_collapsed(perplexity, size=size, tokens=tokens) else 0
        if self.lines != LINES_BEFORE_HINT:
            return None
        return (
            f"hint: the codebook has collapsed: {usage:.1%} of {size} codes are used, with a "
            f"perplexity of {perplexity:.0f}. What helps: a lower optim.lr, restarts "
            "(codebook.restart_below) and normalized lookups (codebook.l2_normalize=true) of vq "
            "and ema, an entropy loss (codebook.entropy_weight); see docs/codebooks.md"
        )
