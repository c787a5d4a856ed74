"""Graphs of PyTorch: ``encoder.pt2`` and ``decoder.pt2``, for any batch and any image size."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import Agreement, Tolerance, compare
from vqtrain.formats.parts.graphs import check_ids, trace
from vqtrain.formats.parts.preprocess import write_preprocess
from vqtrain.tokenizer.model import Tokenizer


@final
class TorchExport(Exporter):
    """Two programs of ``torch.export``."""

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a codebook without ids."""
        check_ids(tokenizer)

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write both graphs and ``preprocess.py``, load them again and compare them."""
        programs = trace(tokenizer.folded(), refuses=False)
        written = {}
        for name, program in (("encoder", programs.encoder), ("decoder", programs.decoder)):
            torch.export.save(program, out / f"{name}.pt2")
            written[name] = torch.export.load(out / f"{name}.pt2").module()
        write_preprocess(tokenizer, out)
        return compare(
            tokenizer,
            images,
            encode=written["encoder"],
            decode=written["decoder"],
            tolerance=Tolerance(),
        )

    def example(self, out: Path) -> str:
        """Return lines of Python that load the encoder."""
        return f"import torch\ntorch.export.load({str(out / 'encoder.pt2')!r}).module()"
