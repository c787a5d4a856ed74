"""Times vqtrain's codebooks, and measures their memory, against other packages and a bare search.

Each figure is of a forward and a backward pass over the same latents, in float32 and train mode.
``floor`` is no codebook: a tiled matrix product and its largest column, without gradients. The
others are ours as their YAML files have them, ``vector-quantize-pytorch`` (vqp), ``diffusers`` and
``taming-transformers-rom1504`` (taming), with their own defaults; those not installed are left out.
What ours do at the end of a step (``update``) is timed apart, in the note: vqp moves its codes
within the pass, in diffusers and taming the optimizer does. A codebook with an entropy loss has no
counterpart and fewer tokens.

Time: all take turns, and the medians are compared. Memory: the most that a pass holds beside
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

import torch
import yaml
from torch import Tensor, nn

from vqtrain.codebooks.ema import EMA
from vqtrain.codebooks.ibq import IBQ
from vqtrain.codebooks.lfq import LFQ
from vqtrain.codebooks.vq import VQ

CONFIGS = Path(__file__).parents[1] / "configs" / "codebook"
OURS = {"ours vq": VQ, "ours ema": EMA, "ours ibq": IBQ, "ours lfq": LFQ}
# The entropies of lfq are exact over all codes where one group has all bits.
CHANGES = {"ours lfq": {"group_bits": 18}}
TABLES = ["floor", "ours vq", "ours ema", "vqp", "diffusers", "taming"]
ENTROPY_SIZE, ENTROPY_TOKENS, IBQ_DIM = 2**18, 1024, 256
# Float32 matrices of tokens times codes that are held at once, rounded up from the memory measured
# at sizes of 16384 and 65536; those that go over tiles hold none.
MATRICES = {"vqp": 6.0, "diffusers": 1.2, "taming": 3.0}
SIDE = 16  # of the grid of latents
FLOOR_TILE = 1024
QUICK_SIZE, QUICK_ROUNDS = 4096, 15  # up to this size a pass takes milliseconds
SLOW_SECONDS = 10.0  # another package's codebook that takes longer is not timed again


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


def device() -> torch.device:
    """Say where everything runs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def latents(tokens: int, dim: int) -> Tensor:
    """Make latents for that many tokens."""
    torch.manual_seed(0)
    z = torch.randn(tokens // SIDE**2, dim, SIDE, SIDE, device=device())
    return z.requires_grad_()


def build(who: str, z: Tensor, size: int) -> Contender:
    """Build a contender for these latents.

    Raises:
        ImportError: If its package is not installed.
    """
    if who == "floor":
        return build_floor(z, size)
    if who in OURS:
        return build_ours(who, z, size)
    return build_foreign(who, z, size)


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


def build_ours(who: str, z: Tensor, size: int) -> Contender:
    """Build a codebook of vqtrain as its YAML file has it, but for its size."""
    settings = yaml.safe_load((CONFIGS / f"{who.removeprefix('ours ')}.yaml").read_text())
    del settings["kind"]
    settings |= {"size": size} | CHANGES.get(who, {})
    if "dim" in settings:
        settings["dim"] = z.shape[1]
    codebook = OURS[who](**settings).to(z.device)

    def forward() -> Tensor:
        quantized = codebook(z)
        return quantized.z_q.sum() + quantized.loss

    return Contender(
        forward=forward,
        update=lambda: codebook.update(1),
        parameters=list(codebook.parameters()),
    )


def build_foreign(who: str, z: Tensor, size: int) -> Contender:
    """Build a codebook of another package."""
    dim = z.shape[1]
    codebook: nn.Module
    if who == "vqp":
        from vector_quantize_pytorch import VectorQuantize

        codebook = VectorQuantize(dim=dim, codebook_size=size, accept_image_fmap=True)
    elif who == "diffusers":
        from diffusers.models.autoencoders.vq_model import VectorQuantizer

        codebook = VectorQuantizer(size, dim, beta=0.25)
    else:
        from taming.modules.vqvae.quantize import VectorQuantizer2

        codebook = VectorQuantizer2(size, dim, beta=0.25)
    codebook.to(z.device)

    def forward() -> Tensor:
        # All give latents, ids and a loss, but not in the same order.
        outputs = codebook(z)
        return outputs[0].sum() + outputs[2 if who == "vqp" else 1]

    return Contender(forward=forward, update=lambda: None, parameters=list(codebook.parameters()))


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> int:
    """Forget the peak of memory, and return the bytes that are held now."""
    synchronize()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        # What was freed goes back to the system, or it would hide what the pass takes.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most bytes that were held since the last reset."""
    synchronize()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)


def extra_bytes(who: str, size: int, dim: int, tokens: int) -> int:
    """Return the most bytes that a pass holds beside latents, codebook and its gradient."""
    # Threads, libraries and their workspaces come with the first pass; a case of lfq has 8 bits.
    warm = build(who, latents(2 * SIDE**2, 8), 256)
    matrix = torch.randn(1024, 1024, device=device())
    matrix @ matrix.T
    loss = warm.forward()
    if loss is not None:
        loss.backward()
    z = latents(tokens, dim)
    contender = build(who, z, size)
    del warm, matrix, loss

    before = reset_peak()
    loss = contender.forward()
    most = peak() - before
    if loss is not None:
        # Apart, since only backward may take the gradient off.
        reset_peak()
        loss.backward()
        of_codes = sum(p.grad.nbytes for p in contender.parameters if p.grad is not None)
        most = max(most, peak() - before - of_codes)
    return most


def measure_memory(who: str, case: Case, max_gb: float) -> dict[str, object]:
    """Begin a row: with the memory of a contender, or with a note why it cannot run."""
    row: dict[str, object] = {
        "who": who,
        "size": case.size,
        "dim": case.dim,
        "tokens": case.tokens,
        "seconds": None,
        "ratio_to_floor": None,
        "extra_mb": None,
        "estimated_gb": None,
        "device": device_name(),
        "note": "",
    }
    if who in MATRICES:
        estimated_gb = MATRICES[who] * case.tokens * case.size * 4 / 1e9
        row["estimated_gb"] = round(estimated_gb, 2)
        if estimated_gb > max_gb:
            return row | {"note": f"not run: about {estimated_gb:.0f} GB"}
    # A new process, so that no peak hides another one.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            extra = pool.submit(extra_bytes, who, case.size, case.dim, case.tokens).result()
        except ImportError:
            return row | {"note": "not installed"}
        except (BrokenProcessPool, torch.OutOfMemoryError):
            return row | {"note": "not run: out of memory"}
    return row | {"extra_mb": round(extra / 1e6, 1)}


def device_name() -> str:
    """Name the device."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def pass_seconds(contender: Contender, z: Tensor) -> float:
    """Time a forward and a backward pass."""
    for tensor in (z, *contender.parameters):
        tensor.grad = None
    synchronize()
    began = time.perf_counter()
    loss = contender.forward()
    if loss is not None:
        loss.backward()
    synchronize()
    return time.perf_counter() - began


def update_seconds(contender: Contender) -> float:
    """Time the end of a step."""
    began = time.perf_counter()
    contender.update()
    synchronize()
    return time.perf_counter() - began


def measure_case(case: Case, rounds: int, max_gb: float) -> list[dict[str, object]]:
    """Measure the memory of all contenders one by one, then their time in turn."""
    rows = {who: measure_memory(who, case, max_gb) for who in case.contenders}
    z = latents(case.tokens, case.dim)
    contenders = {who: build(who, z, case.size) for who, row in rows.items() if not row["note"]}
    times: dict[str, list[float]] = {who: [] for who in contenders}
    updates: dict[str, list[float]] = {who: [] for who in contenders}
    for _ in range(max(rounds, QUICK_ROUNDS) if case.size <= QUICK_SIZE else rounds):
        for who, contender in contenders.items():
            if who in MATRICES and max(times[who], default=0.0) > SLOW_SECONDS:
                continue
            times[who].append(pass_seconds(contender, z))
            updates[who].append(update_seconds(contender))
    floor = median(times["floor"])
    for who, taken in times.items():
        rows[who]["seconds"] = round(median(taken), 5)
        rows[who]["ratio_to_floor"] = round(median(taken) / floor, 3)
        if who in OURS:
            rows[who]["note"] = f"update {median(updates[who]):.4f} s"
        elif len(taken) < len(times["floor"]):
            rows[who]["note"] = f"timed {len(taken)} of {len(times['floor'])} rounds"
    return list(rows.values())


def line_of(row: dict[str, object]) -> str:
    """Write a row for reading."""
    place = f"size {row['size']:>6}  dim {row['dim']:>3}  {row['who']:<9}"
    if row["seconds"] is None:
        return f"{place}  {row['note']}"
    figures = f"{row['seconds']:9.4f} s  {row['ratio_to_floor']:7.2f} x floor"
    return f"{place}{figures}  {row['extra_mb']:9.1f} MB extra  {row['note']}".rstrip()


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
    cases = [
        Case(contenders=TABLES, size=size, dim=dim, tokens=arguments.tokens)
        for size in arguments.sizes
        for dim in arguments.dims
    ]
    if ENTROPY_SIZE in arguments.sizes:
        tokens = min(ENTROPY_TOKENS, arguments.tokens)
        dims = {"ours ibq": IBQ_DIM, "ours lfq": ENTROPY_SIZE.bit_length() - 1}
        cases += [
            Case(contenders=["floor", who], size=ENTROPY_SIZE, dim=dim, tokens=tokens)
            for who, dim in dims.items()
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
