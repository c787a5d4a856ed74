"""The cost of the tokenizers of an evaluation."""

from collections.abc import Sequence

from vqtrain.data.media import media_of
from vqtrain.evaluation.results import TokenizerResult
from vqtrain.reports.blocks import Block, Text, number, table, word
from vqtrain.shapes import sample_size_of


def cost_blocks(tokenizers: Sequence[TokenizerResult]) -> list[Block]:
    """Show parameters, FLOPs, speed, and the time of the evaluation."""
    costs = [(word(each.name), each.cost) for each in tokenizers if each.cost is not None]
    size = [
        {
            "tokenizer": name,
            "parameters": number(sum(cost.parameters.values())),
            **{part.replace("_", " "): number(n) for part, n in cost.parameters.items()},
            "encode (GFLOPs)": number(cost.encode_flops / 1e9, decimals=3),
            "decode (GFLOPs)": number(cost.decode_flops / 1e9, decimals=3),
        }
        for name, cost in costs
    ]
    speed = [
        {
            "tokenizer": name,
            "operation": word(timing.operation),
            "batch size": number(timing.batch_size),
            "device": word(cost.device),
            "median (ms)": number(timing.median_ms, decimals=2),
            "95th percentile (ms)": number(timing.p95_ms, decimals=2),
            f"{noun}s/s": number(timing.images_per_s, decimals=1),
            "memory (MiB)": number(timing.memory_bytes and timing.memory_bytes / 2**20, decimals=1),
            "stable": word("yes") if timing.is_steady else word("no", tone="bad"),
        }
        for name, cost in costs
        for noun in [media_of(len(sample_size_of(cost.image_size))).noun]
        for timing in cost.timings
    ]
    seconds = [
        {
            "name": word(each.name),
            **{part.replace("_", " "): number(n, decimals=1) for part, n in each.seconds.items()},
        }
        for each in tokenizers
        if each.seconds
    ]
    note = "GFLOPs are per sample; a multiply-add counts 2."
    stable = "Stable: two rounds of the measurement agree within 10 %."
    found: list[Block] = [
        table(caption, rows, notes=notes)
        for caption, rows, notes in (
            ("Size", size, [note]),
            ("Speed", speed, [stable]),
            ("Seconds of the evaluation", seconds, []),
        )
        if rows
    ]
    return found or [Text(text="Cost was not measured.", tone="note")]
