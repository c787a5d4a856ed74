"""What tokenizers of an evaluation cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from vqtrain.reports.blocks import Block, Cell, Table, Text, number, word

PARTS = ("encoder", "decoder", "projections", "codebook", "codebook_entries")


def cost_blocks(entries: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Show parameters, FLOPs, speed, and what the evaluation has taken."""
    parameters, timings = [], []
    for entry in entries:
        cost, name = entry.get("cost"), entry.get("name")
        if cost:
            parts = cost.get("parameters") or {}
            flops = [cost.get(f"{way}_flops") for way in ("encode", "decode")]
            parameters.append(
                [
                    word(name),
                    number(sum(parts.values())),
                    *(number(parts.get(part)) for part in PARTS),
                    *(number(None if n is None else n / 1e9, decimals=3) for n in flops),
                ]
            )
            timings += [_timing(name, cost.get("device"), timing) for timing in cost["timings"]]
    blocks: list[Block] = []
    if parameters:
        heads = ["tokenizer", "parameters", *(part.replace("_", " ") for part in PARTS)]
        heads += ["encode (GFLOPs)", "decode (GFLOPs)"]
        note = "GFLOPs are of one image; a multiply-add counts 2."
        blocks.append(Table(caption="Size", heads=heads, rows=parameters, notes=[note]))
        heads = ["tokenizer", "pass", "images at once", "device", "median (ms)", "95 % within (ms)"]
        heads += ["images/s", "memory (MiB)", "steady"]
        blocks.append(Table(caption="Speed", heads=heads, rows=timings))
    taken = {str(entry.get("name")): entry.get("seconds") or {} for entry in entries}
    parts = list(dict.fromkeys(part for seconds in taken.values() for part in seconds))
    if parts:
        rows = [
            [word(name), *(number(seconds.get(part), decimals=1) for part in parts)]
            for name, seconds in taken.items()
        ]
        heads = ["tokenizer", *(part.replace("_", " ") for part in parts)]
        blocks.append(Table(caption="Seconds of the evaluation", heads=heads, rows=rows))
    return blocks or [Text(text="Cost was not measured.", tone="note")]


def _timing(name: object, device: object, timing: Mapping[str, Any]) -> list[Cell]:
    memory, is_steady = timing.get("memory_bytes"), timing.get("is_steady")
    return [
        word(name),
        word(timing.get("operation")),
        number(timing.get("batch_size")),
        word(device),
        number(timing.get("median_ms"), decimals=2),
        number(timing.get("p95_ms"), decimals=2),
        number(timing.get("images_per_s"), decimals=1),
        number(None if memory is None else memory / 2**20, decimals=1),
        word("yes" if is_steady else "no", tone="" if is_steady else "bad"),
    ]
