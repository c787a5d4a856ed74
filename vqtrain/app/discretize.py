"""``vqtrain discretize``: token ids of a continuous tokenizer."""

from typing import Annotated, final

from vqtrain.app.base import Command
from vqtrain.app.parts.compose import CommandLine
from vqtrain.ranges import above, at_least


@final
class Discretize(Command):
    """Trains a codebook on the latents of a continuous tokenizer, and puts it into that."""

    is_composed = True

    def run(
        self,
        *,
        words: list[str],
        command_line: CommandLine,
        tokenizer: str,
        out: str,
        decoder_steps: Annotated[int, at_least(0)],
        decoder_lr: Annotated[float, above(0)],
        metrics: list[str | dict[str, object]],
    ) -> int:
        """Discretize, and say what came of it."""
        # They import Lightning, which takes seconds.
        from vqtrain.app.parts.discretizing.plan import make_plan
        from vqtrain.app.parts.discretizing.stages import discretize

        plan = make_plan(
            command_line,
            words,
            tokenizer=tokenizer,
            out=out,
            decoder_steps=decoder_steps,
            decoder_lr=decoder_lr,
            metrics=metrics,
        )
        return discretize(plan)
