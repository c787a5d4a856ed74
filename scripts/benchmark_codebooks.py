"""Times vqtrain's codebooks, and measures their memory, against other packages and a bare search.

Each figure is of a forward and a backward pass over the same latents, in float32 and train mode.
``floor`` is no codebook: a tiled matrix product and its largest columns, without gradients. The
others are ours as their YAML files have them, ``vector-quantize-pytorch`` (vqp), ``diffusers`` and
``taming-transformers-rom1504`` (taming), each with its own defaults. What ours do at the end of a
step (``update``) is timed apart, in the note; vqp moves its codes within the pass, those of the
other two are moved by an optimizer. The codebooks with entropies have fewer tokens.

Time: all take turns, and the medians are compared. Memory: the most that a pass holds besides
latents, codebook and the codebook's gradient, in MB of 10^6 bytes; on a CPU it is resident memory,
read on Linux in a process of its own. What is estimated above ``--max-gb`` is not run. The last
lines are JSON, one a row. Run: python scripts/benchmark_codebooks.py
"""

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from vqtrain.codebooks.ema import EMA
from vqtrain.codebooks.ibq import IBQ
from vqtrain.codebooks.lfq import LFQ
from vqtrain.codebooks.vq import VQ

CONFIGS = Path(__file__).parents[1] / "configs" / "codebook"
OURS = {"ours vq": VQ, "ours ema": EMA, "ours ibq": IBQ, "ours lfq": LFQ}
# Float32 matrices of tokens times codes that are held at once, rounded up from what was measured
# at sizes of 16384 and 65536. Ours and the floor go over tiles and hold none.
MATRICES = {"vqp": 6.1, "diffusers": 1.1, "taming": 3.1}
STEADY = ["floor", "ours vq", "ours ema"]
ENTROPY_SIZE, ENTROPY_TOKENS = 2**18, 1024
ENTROPY_DIMS = {"ours ibq": 256, "ours lfq": 18}
SIDE = 16  # of the grid of latents
FLOOR_TILE = 1024
QUICK_SIZE, QUICK_ROUNDS = 4096, 15  # up to this size a pass takes milliseconds
SLOW_SECONDS = 10.0  # what takes longer is not timed again, but for the steady ones
CUDA = torch.cuda.is_available()


@dataclass(frozen=True)
class Case:
    """Contenders that are compared on the same latents."""

    contenders: list[str]
    size: int
    dim: int
    tokens: int


@dataclass(frozen=True)
class Contender:
    """What is measured.

    Attributes:
        forward: The forward pass; returns what is differentiated, or None.
        update: Ends a step.
        parameters: Their gradients are the codebook's own.
    """

    forward: Callable[[], Tensor | None]
    update: Callable[[], object]
    parameters: list[nn.Parameter]


def latents(tokens: int, dim: int) -> Tensor:
    """Make latents for that many tokens."""
    torch.manual_seed(0)
    z = torch.randn(tokens // SIDE**2, dim, SIDE, SIDE, device="cuda" if CUDA else "cpu")
    return z.requires_grad_()


def build(who: str, z: Tensor, size: int) -> Contender:
    """Build a contender; raises ImportError if its package is not installed."""
    if who == "floor":
        return build_floor(z, size)
    codebook = (build_ours if who in OURS else build_foreign)(who, z.shape[1], size).to(z.device)

    def forward() -> Tensor:
        outputs = codebook(z)
        if who in OURS:
            return outputs.z_q.sum() + outputs.loss
        # Latents come first; vqp gives ids and the loss, the others the loss and ids.
        return outputs[0].sum() + outputs[2 if who == "vqp" else 1]

    return Contender(
        forward=forward,
        update=lambda: codebook.update(0) if who in OURS else None,
        parameters=list(codebook.parameters()),
    )


def build_floor(z: Tensor, size: int) -> Contender:
    """Build the bare search."""
    codes = torch.randn(size, z.shape[1], device=z.device)
    flat = z.detach().movedim(1, -1).flatten(0, 2).contiguous()

    def search() -> None:
        best, best_id = (flat @ codes[:FLOOR_TILE].T).max(1)
        for start in range(FLOOR_TILE, size, FLOOR_TILE):
            score, within = (flat @ codes[start : start + FLOOR_TILE].T).max(1)
            best_id = torch.where(score > best, within + start, best_id)
            best = torch.maximum(score, best)

    return Contender(forward=search, update=lambda: None, parameters=[])


def build_ours(who: str, dim: int, size: int) -> Any:  # noqa: ANN401  # more than a Module
    """Build a codebook as its YAML file has it, but for its size."""
    settings = yaml.safe_load((CONFIGS / f"{who.removeprefix('ours ')}.yaml").read_text())
    del settings["kind"]
    # One group of all bits of lfq makes its entropies exact; it has as many channels as bits.
    changes = {"size": size, "dim": dim, "group_bits": ENTROPY_DIMS["ours lfq"]}
    return OURS[who](**{key: changes.get(key, value) for key, value in settings.items()})


def build_foreign(who: str, dim: int, size: int) -> nn.Module:
    """Build a codebook of another package."""
    if who == "vqp":
        from vector_quantize_pytorch import VectorQuantize

        return VectorQuantize(dim=dim, codebook_size=size, accept_image_fmap=True)
    if who == "diffusers":
        from diffusers.models.autoencoders.vq_model import VectorQuantizer

        return VectorQuantizer(size, dim, beta=0.25)
    from taming.modules.vqvae.quantize import VectorQuantizer2

    return VectorQuantizer2(size, dim, beta=0.25)


def reset_peak() -> int:
    """Forget the peak of memory, and return the bytes that are held now."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    else:
        # What was freed goes back to the system, or it would hide what the pass takes.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most bytes that were held since the last reset."""
    if CUDA:
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)


def extra_bytes(who: str, size: int, dim: int, tokens: int) -> int:
    """Return the most bytes that a pass holds besides latents, codebook and its gradient."""
    # Threads, libraries and their workspaces come with the first pass; 256 codes of lfq are 8 bits.
    run_pass(build(who, latents(2 * SIDE**2, 8), 256))
    matrix = torch.ones(1024, 1024, device="cuda" if CUDA else "cpu")
    matrix @ matrix
    z = latents(tokens, dim)
    contender = build(who, z, size)
    before = reset_peak()
    loss = contender.forward()
    most = peak() - before
    if loss is not None:
        # Apart, since the codebook's gradient is held in backward only.
        reset_peak()
        loss.backward()
        of_codes = sum(p.grad.nbytes for p in contender.parameters if p.grad is not None)
        most = max(most, peak() - before - of_codes)
    return most


def run_pass(contender: Contender) -> None:
    """Run forward and backward."""
    loss = contender.forward()
    if loss is not None:
        loss.backward()


def seconds(run: Callable[[], object]) -> float:
    """Time a call."""
    if CUDA:
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure_memory(who: str, case: Case, max_gb: float) -> dict[str, Any]:
    """Begin a row: with the memory of a contender, or with a note why it cannot run."""
    row: dict[str, Any] = {"who": who, "size": case.size, "dim": case.dim, "tokens": case.tokens}
    row |= dict.fromkeys(["seconds", "ratio_to_floor", "extra_mb", "estimated_gb"])
    name = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    row |= {"device": name, "note": ""}
    if who in MATRICES:
        row["estimated_gb"] = round(MATRICES[who] * case.tokens * case.size * 4 / 1e9, 2)
        if row["estimated_gb"] > max_gb:
            return row | {"note": f"not run: about {row['estimated_gb']:.0f} GB"}
    # A new process, so that no peak hides another one, forked from one that has only imported.
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "vqtrain.codebooks.vq"])
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            extra = pool.submit(extra_bytes, who, case.size, case.dim, case.tokens).result()
        except ImportError:
            return row | {"note": "not installed"}
        except (BrokenProcessPool, torch.OutOfMemoryError):
            return row | {"note": "not run: out of memory"}
    return row | {"extra_mb": round(extra / 1e6, 1)}


def measure_case(case: Case, rounds: int, max_gb: float) -> list[dict[str, Any]]:
    """Measure the memory of all contenders one by one, then their time in turn."""
    rows = {who: measure_memory(who, case, max_gb) for who in case.contenders}
    z = latents(case.tokens, case.dim)
    contenders = {who: build(who, z, case.size) for who, row in rows.items() if not row["note"]}
    times: dict[str, list[float]] = {who: [] for who in contenders}
    updates: dict[str, list[float]] = {who: [] for who in contenders}
    for _ in range(max(rounds, QUICK_ROUNDS) if case.size <= QUICK_SIZE else rounds):
        for who, contender in contenders.items():
            if who not in STEADY and max(times[who], default=0.0) > SLOW_SECONDS:
                continue
            times[who].append(seconds(lambda contender=contender: run_pass(contender)))
            updates[who].append(seconds(contender.update))
            for tensor in (z, *contender.parameters):
                tensor.grad = None
    for who, taken in times.items():
        rows[who]["seconds"] = round(median(taken), 5)
        rows[who]["ratio_to_floor"] = round(median(taken) / median(times["floor"]), 3)
        update = f"update {median(updates[who]):.4f} s" if who in OURS else ""
        once = "timed once" if len(taken) < len(times["floor"]) else ""
        rows[who]["note"] = ", ".join(filter(None, [update, once]))
    return list(rows.values())


def line_of(row: dict[str, Any]) -> str:
    """Write a row for reading."""
    line = f"size {row['size']:>6}  dim {row['dim']:>3}  {row['who']:<9}"
    if row["seconds"] is not None:
        line += f"{row['seconds']:9.4f} s {row['ratio_to_floor']:7.2f} x floor"
        line += f"{row['extra_mb']:9.1f} MB extra"
    return f"{line}  {row['note']}".rstrip()


def main() -> None:
    """Measure all cases, print them, and print them again as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 16384, 65536, 262144])
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 256])
    parser.add_argument("--tokens", type=int, default=8192, help=f"a multiple of {SIDE**2}")
    parser.add_argument(
        "--rounds", type=int, default=3, help=f"small sizes: {QUICK_ROUNDS} or more"
    )
    parser.add_argument("--max-gb", type=float, default=16.0)
    arguments = parser.parse_args()
    tokens, sizes, dims = arguments.tokens, arguments.sizes, arguments.dims
    cases = [Case([*STEADY, *MATRICES], size, dim, tokens) for size in sizes for dim in dims]
    if ENTROPY_SIZE in sizes:
        cases += [
            Case(["floor", who], ENTROPY_SIZE, dim, min(ENTROPY_TOKENS, tokens))
            for who, dim in ENTROPY_DIMS.items()
        ]
    rows = []
    for case in cases:
        for row in measure_case(case, arguments.rounds, arguments.max_gb):
            print(line_of(row), flush=True)
            rows.append(row)
    print()
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
