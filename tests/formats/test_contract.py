"""What every format must do. A new file of the package joins by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from vqtrain.build import kinds, resolve
from vqtrain.errors import ConfigError
from vqtrain.formats.base import Converter, Exporter, Format
from vqtrain.formats.contract import check
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.tokenizer.model import Tokenizer

SLOW = ("onnx", "space", "torch_export", "transformers", "web")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else [])
        for kind in kinds("format")
    ],
)
@pytest.mark.usefixtures("unchecked", "no_runtime")
def test_the_contract_is_kept(kind: str) -> None:
    check(resolve("format", kind)())


class _Silent(Exporter):
    """Compares, and writes nothing."""

    images, code, written = 4, "1 + 1", False

    def export(self, tokenizer: Tokenizer, out: Path, *, images: list[Tensor]) -> Agreement:
        del tokenizer, images
        if self.written:
            (out / "file").write_text("")
        return Agreement(images=self.images, ids=0, other_ids=0, pixels=0.0)

    def example(self, out: Path) -> str:
        del out
        return self.code


class _Gullible(Converter):
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def convert(self, path: Path) -> Tokenizer:
        del path
        if self.error is not None:
            raise self.error
        return None  # type: ignore[return-value]  # what else


def broken() -> Iterator[tuple[Format, str]]:
    yield Format(), "an Exporter or a Converter"
    yield _Silent(), "export must write into the folder"
    yield type("_Few", (_Silent,), {"images": 2})(), "export must compare all images"
    code = {"written": True, "code": "1 +"}
    yield type("_NoCode", (_Silent,), code)(), "example must be lines of Python"
    yield _Gullible(None), "convert must refuse"
    yield _Gullible(KeyError("a")), "must raise CheckpointError .*, not KeyError"


@pytest.mark.parametrize(("format_", "message"), list(broken()))
def test_a_broken_promise_is_named(format_: Format, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(format_)
