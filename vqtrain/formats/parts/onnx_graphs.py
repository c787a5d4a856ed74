"""Two graphs in ONNX, written and compared, for each format that holds them."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export import ExportedProgram

from vqtrain.build import unknown
from vqtrain.data.media import media_of
from vqtrain.errors import ConfigError
from vqtrain.formats.parts.agreement import Agreement, Tolerance, compare
from vqtrain.formats.parts.graphs import AXES, trace
from vqtrain.formats.parts.writing import write_json
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

# Half precision rounds by up to 2^-11 of a value at each layer. On photographs, 0.07 % of the ids
# of a small VQ-VAE of 512 codes and 0.05 % of those of a small VQGAN became others; pixels moved
# by 1e-3. The more codes, the more ids lie at a border, and each of 18 signs may turn, so the limit
# of ids is wide; that of pixels is 2.5 of 255 levels. Near ties are those of rounding in float32.
TOLERANCES = {
    "float32": Tolerance(),
    "float16": Tolerance(ids_frac=0.05, pixels=0.02, near=None),
}


def check_ready(word: str, precision: str) -> None:
    """Refuse what cannot be written here.

    Args:
        word: Of the format.
        precision: Of the networks.

    Raises:
        ConfigError: If there is no such precision, or a package is missing.
    """
    if precision not in TOLERANCES:
        raise ConfigError(unknown("precision", precision, TOLERANCES))
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ConfigError(f'format={word} needs {package}: pip install "vqtrain[export]"')


def write_graphs(
    tokenizer: Tokenizer,
    out: Path,
    *,
    precision: str,
    images: Sequence[Float[Tensor, "_ c *_"]],
) -> Agreement:
    """Write both graphs and ``config.json``, run the graphs and compare them.

    Args:
        tokenizer: In eval mode, on the CPU.
        out: A folder that exists.
        precision: Of the networks, a key of ``TOLERANCES``.
        images: Batches in [-1, 1] to compare on.

    Raises:
        ConfigError: If the tokenizer has no such form.
        VqtrainError: If the graphs do not agree with it.
    """
    plain = tokenizer.folded()
    if precision == "float16":
        for network in (plain.encoder, plain.project_in, plain.project_out, plain.decoder):
            network.half()
    programs = trace(plain, refuses=True)
    samples = f"{media_of(len(tokenizer.unit)).noun}s"
    write(programs.encoder, out / ENCODER, given=samples, got="token_ids")
    write(programs.decoder, out / DECODER, given="token_ids", got=samples)
    write_json(out / storage.CONFIG_FILE, storage.stamped(tokenizer.config))
    return compare(
        tokenizer,
        images,
        encode=runner(out / ENCODER),
        decode=runner(out / DECODER),
        tolerance=TOLERANCES[precision],
    )


def write(program: ExportedProgram, file: Path, *, given: str, got: str) -> None:
    """Turn a graph of PyTorch into one of ONNX, with names for what goes in and out, and axes."""
    try:
        converted = torch.onnx.export(
            program, input_names=[given], output_names=[got], dynamo=True, verbose=False
        )
    except torch.onnx.OnnxExporterError as error:
        # What it says first is how to tell its developers; the cause is what it could not turn.
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(f"this tokenizer has no ONNX form: {cause}") from error
    assert converted is not None, "with dynamo=True a program comes back"
    graph = converted.model.graph
    token_ids = graph.inputs[0] if given == "token_ids" else graph.outputs[0]
    axes = [axis for axis in token_ids.shape or () if not isinstance(axis, int)]
    names = ("batch", *AXES.get(len(axes) - 1, ()))
    converted.rename_axes(dict(zip(axes, names, strict=True)))
    converted.save(file)


def runner(file: Path) -> Callable[[Tensor], Tensor]:
    """Return what runs a graph of one input and one output on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tensor: torch.from_numpy(session.run(None, {name: tensor.numpy()})[0])
