"""Exports one tokenizer to every format, and prints how each agrees with PyTorch.

Photographs come in three sizes, of which two are not square. Ids that differ are near ties, and
pixels are compared from equal ids, as ``vqtrain export`` does; what differs by more ends in its
reason. Run:
python scripts/check_exports.py tokenizer=runs/demo/latest images=PHOTOGRAPHS image_size=256
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from vqtrain.app.parts.compared import DEMO, samples_of
from vqtrain.app.parts.keys import read_values
from vqtrain.app.parts.pages import page_of
from vqtrain.build import resolve
from vqtrain.errors import VqtrainError
from vqtrain.formats.base import Exporter
from vqtrain.tokenizer.model import Tokenizer

PHOTOGRAPHS = 64
# A decoder needs gigabytes for all of one size at once.
AT_ONCE = 4

EXPORTS = {
    "safetensors": ("safetensors", {}),
    "torch_export": ("torch_export", {}),
    "onnx, float32": ("onnx", {"precision": "float32"}),
    "onnx, float16": ("onnx", {"precision": "float16"}),
    "diffusers": ("diffusers", {}),
}


def main() -> None:
    """Export to one format after the other."""
    values = read_values(page_of("export"), sys.argv[1:])
    tokenizer = Tokenizer.from_pretrained(values["tokenizer"], allow=values["allow"])
    sizes = samples_of(
        tokenizer, values["images"] or DEMO, image_size=values["image_size"], count=PHOTOGRAPHS
    )
    shapes = ", ".join(f"{len(batch)} of {batch.shape[2]} x {batch.shape[3]} px" for batch in sizes)
    print(f"torch {torch.__version__}; photographs: {shapes}\n")
    batches = [part for batch in sizes for part in batch.split(AT_ONCE)]
    print("| format | ids equal | pixels differ by | time |\n|---|---|---|---|")
    for name, (word, options) in EXPORTS.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                exporter = resolve("format", word)(**options)
                assert isinstance(exporter, Exporter)
                found = exporter.export(tokenizer, Path(folder), images=batches)
            except VqtrainError as error:
                print(f"| {name} | {error} | | |", flush=True)
                continue
        equal = f"{found.ids - found.other_ids:,} of {found.ids:,}" if found.ids else "not compared"
        seconds = time.perf_counter() - start
        print(f"| {name} | {equal} | {found.pixels:.1e} | {seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
