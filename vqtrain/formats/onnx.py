"""ONNX, for tokenizers without PyTorch: ``encoder.onnx`` and ``decoder.onnx``."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.graphs import check_ids
from vqtrain.formats.parts.onnx_graphs import ENCODER, check_ready, write_graphs
from vqtrain.formats.parts.onnx_readme import readme
from vqtrain.formats.parts.preprocess import write_preprocess
from vqtrain.tokenizer.model import Tokenizer


@final
class ONNX(Exporter):
    """Two graphs, how to run them, and ``config.json``.

    Args:
        precision: Of the networks, ``float32`` or ``float16``. The codebook is in float32, as are
            images that go in and out.

    Raises:
        ConfigError: If there is no such precision, or a package is missing.
    """

    def __init__(self, *, precision: str = "float32") -> None:
        check_ready("onnx", precision)
        self.precision = precision

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a codebook without ids."""
        check_ids(tokenizer)

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the graphs, run them and compare."""
        agreement = write_graphs(tokenizer, out, precision=self.precision, images=images)
        write_preprocess(tokenizer, out)
        (out / "README.md").write_text(readme(tokenizer, self.precision), encoding="utf-8")
        return agreement

    def example(self, out: Path) -> str:
        """Return lines of Python that load the encoder."""
        file = str(out / ENCODER)
        return f"import onnxruntime\nonnxruntime.InferenceSession({file!r})"
