"""Times whole training steps: vqtrain's, and what people would use instead, on the same batch.

Contenders take turns, each in a process of its own, and the medians of their steps are compared:
vqtrain as its experiments have it, taming-transformers and diffusers where they have the same
network, the codebook of vector-quantize-pytorch in vqtrain's step, and variants of vqtrain:
layouts, compiled, recomputing activations, another precision. ``scripts/step_contenders.py`` says
what a step of each is. Perceptual networks have random weights.

Memory is the most that a step holds, weights and optimizers included, libraries not: on a GPU what
torch has allocated, on a CPU resident memory, read on Linux. Utilization is the share of the
device's peak that the arithmetic of the step is: products of convolutions and matrices, counted
once also where they are computed again. The peak is a published one of dense products or, on a CPU
or an unknown GPU, what a large convolution or matrix product reaches here. The cost of logging,
progress, checkpoints and validation comes from a short run with all of them.

On a GPU images have 256 px, on a CPU 128. The last line is JSON.
Run: python scripts/benchmark_step.py, or with --quick in a few minutes on a CPU
"""

import argparse
import gc
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from statistics import median
from typing import Any, final

import torch
from benchmark_codebooks import peak, reset_peak
from step_contenders import PACKAGES, SETTINGS, TITLES, Case, Contender, Ours, build
from step_parts import Costs, arithmetic_of, measure_costs, parts_of, peak_flops

from vqtrain.errors import VqtrainError
from vqtrain.ops.memory import give_back_freed_memory
from vqtrain.training.acceleration import lay_out
from vqtrain.training.launch import quiet_libraries

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
PRECISIONS = ("32-true", "bf16-mixed")
CHECKPOINTED = "trainer.checkpoint_activations=block"
COMPILED = "trainer.compile=true"
# The steps at the start of a turn that are not counted: they choose kernels and fill caches.
WARM = 1


# In the process of a contender: itself, and on a CPU the memory before it was built.
contender: Contender
held = 0


@final
class Row:
    """A contender of a case, in a process of its own, as people would run it.

    Args:
        who: Which one, as ``build`` takes it.
        case: What is measured.

    Attributes:
        seconds: Of its steps.
        first_s: Of the first of all, with what is compiled in it.
        bytes: The most that it held.
        note: Why it cannot run.
    """

    def __init__(self, who: str, case: Case) -> None:
        self.who, self.case = who, case
        self.seconds: list[float] = []
        self.first_s, self.bytes, self.note = 0.0, 0, ""
        self._process = new_process()

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401  # its result
        """Call a function in its process; None if that cannot run."""
        if self.note:
            return None
        try:
            return self._process.submit(function, *arguments).result()
        except (BrokenProcessPool, torch.OutOfMemoryError):
            self.note = "out of memory: try a smaller --batch-size"
            return None

    def begin(self) -> None:
        """Build it."""
        missing = [name for name in PACKAGES.get(self.who, ()) if find_spec(name) is None]
        if missing:
            self.note = f"{missing[0]} is not installed"
        tell(f"{self.case.setting}: building {self.title}")
        self.call(begin, self.who, self.case)

    def take_turn(self, seconds: float) -> None:
        """Train for so many seconds, and for at least one step that counts."""
        found = self.call(take_turn, seconds)
        if found is not None:
            (first, *steps), most = found
            self.first_s, self.bytes = self.first_s or first, self.bytes or most
            self.seconds += steps

    def end(self) -> None:
        """End its process."""
        self._process.shutdown()

    @property
    def step_s(self) -> float:
        """Median seconds of a step."""
        return median(self.seconds)

    @property
    def images_per_s(self) -> float:
        """Images per second."""
        return self.case.batch_size / self.step_s

    @property
    def precision(self) -> str:
        """In what it computes."""
        key, _, word = self.who.partition("=")
        return word if key == "trainer.precision" else self.case.precision

    @property
    def title(self) -> str:
        """Its name for people."""
        variant = self.who.replace("trainer.", "").replace("=true", "")
        return TITLES.get(self.who, f"vqtrain, {variant}")

    @property
    def data(self) -> dict[str, object]:
        """It as plain data."""
        if not self.seconds:
            return {"who": self.who, "note": self.note}
        return {
            "who": self.who,
            "images_per_s": round(self.images_per_s, 4),
            "memory_mb": round(self.bytes / 1e6),
            "steps": len(self.seconds),
            "first_step_s": round(self.first_s, 2),
        }


def new_process() -> ProcessPoolExecutor:
    """Start a process, forked from one that has only imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["vqtrain.app.parts.training"])
    return ProcessPoolExecutor(max_workers=1, mp_context=context)


def begin(who: str, case: Case) -> None:
    """Build the contender of this process."""
    global contender, held  # noqa: PLW0603  # a process has one
    quiet()
    for package in PACKAGES.get(who, ()):
        import_module(package)
    held = 0 if CUDA else reset_peak()
    contender = build(who, case)


def take_turn(seconds: float) -> tuple[list[float], int]:
    """Train the contender of this process; return the times of its steps, and the most it held."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    steps = contender.turn(lambda steps: len(steps) > WARM and sum(steps[WARM:]) >= seconds)
    most = peak() - held
    # The others get what is free; Lightning's trainer and its optimizers refer to each other.
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
    else:
        give_back_freed_memory()
    return steps, most


def examine() -> tuple[int, dict[str, float]]:
    """Return the arithmetic of a step of this process, and the seconds of its parts."""
    assert isinstance(contender, Ours), "the others are not taken apart"
    return arithmetic_of(contender), parts_of(contender)


def tell(text: str) -> None:
    """Say what is done now, to who waits."""
    print(text, file=sys.stderr, flush=True)


def quiet() -> None:
    """Silence advice of libraries that does not apply here."""
    quiet_libraries()
    warnings.filterwarnings("ignore")


def measure(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Measure all contenders of a case in turn."""
    for row in rows:
        row.begin()
    for turn in range(arguments.rounds):
        for row in rows:
            tell(f"{row.case.setting}, turn {turn + 1} of {arguments.rounds}: {row.title}")
            row.take_turn(arguments.seconds / arguments.rounds)


def rows_of(case: Case, arguments: argparse.Namespace) -> list[Row]:
    """List the contenders of a case; ours is the first one."""
    # The example of diffusers has no step without the adversarial part.
    others = SETTINGS[case.setting].contenders
    names = ["ours", *(who for who in others if case.is_adversarial or who != "diffusers")]
    if case.is_adversarial and case.setting == arguments.settings[0]:
        names += variants_of(case.precision, is_quick=arguments.quick)
    return [Row(who, case) for who in names]


def variants_of(precision: str, *, is_quick: bool) -> list[str]:
    """List variants of ours, as words of its command line.

    Args:
        precision: Of the case.
        is_quick: Whether those are left out that have to be compiled first.
    """
    is_contiguous = lay_out(torch.zeros(1, 2, 2, 2), "auto").is_contiguous()
    other = f"trainer.memory_format={'channels_last' if is_contiguous else 'contiguous'}"
    return [
        other,
        *([] if is_quick else [COMPILED, f"{other} {COMPILED}"]),
        CHECKPOINTED,
        *(f"trainer.precision={each}" for each in PRECISIONS if each != precision),
    ]


def report(rows: Sequence[Row], peaks: dict[str, tuple[float, str]]) -> dict[str, object]:
    """Print a case, and return it as plain data."""
    case, ours = rows[0].case, rows[0]
    adversarial = "with" if case.is_adversarial else "without"
    print(
        f"\n{case.setting}, {adversarial} the adversarial part, {case.precision}, "
        f"{case.batch_size} images of {case.image_size} px"
    )
    found: dict[str, object] = {**vars(case), "rows": [row.data for row in rows]}
    examined = ours.call(examine)
    if examined is None:
        print(f"  {ours.title}: {ours.note}")
        return found
    operations, parts = examined
    print(f"  {'':<55}{'images/s':>9}{'of ours':>9}{'MB':>8}{'of ours':>9}{'of peak':>9}")
    for row in rows:
        if not row.seconds:
            print(f"  {row.title:<55}{row.note}")
            continue
        used = operations / row.step_s / peaks[row.precision][0]
        is_own = row.who == "ours" or row.who.startswith("trainer.")
        print(
            f"  {row.title:<55}{row.images_per_s:>9.3g}"
            f"{row.images_per_s / ours.images_per_s:>9.2f}{row.bytes / 1e6:>8.0f}"
            f"{row.bytes / ours.bytes:>9.2f}{f'{used:>9.0%}' if is_own else ''}",
            flush=True,
        )
    total = sum(parts.values())
    shares = (f"{part} {seconds / total:.1%}" for part, seconds in parts.items())
    print(f"  {operations / 1e9:.0f} GFLOP a step of vqtrain: {', '.join(shares)}")
    known = (f"{rate / 1e9:.0f} GFLOP/s in {each} ({how})" for each, (rate, how) in peaks.items())
    print(f"  peak: {', '.join(known)}")
    for line in conclusions(rows):
        print(f"  {line}")
    return found | {
        "gflop": round(operations / 1e9, 1),
        "of_peak": round(operations / ours.step_s / peaks[case.precision][0], 4),
        "parts_s": {part: round(seconds, 4) for part, seconds in parts.items()},
    }


def conclusions(rows: Sequence[Row]) -> list[str]:
    """Compare ours with the others, and say which of its variants is fastest here."""
    found = {row.who: row for row in rows if row.seconds}
    ours = found["ours"]
    lines = [
        f"{own.title} / {other.title}: {compared(own, other)}"
        for who in ("taming", "diffusers")
        for own in (ours, found.get(CHECKPOINTED))
        if own is not None and (other := found.get(who)) is not None
    ]
    lines += [
        f"{row.precision} / {ours.precision}: {compared(row, ours)}"
        for row in found.values()
        if row.precision != ours.precision
    ]
    # The same numbers, or those of another order of summation.
    equal = [row for who, row in found.items() if "memory_format" in who or COMPILED in who]
    if equal:
        fastest = max(ours, *equal, key=lambda row: row.images_per_s)
        how = "as it is" if fastest is ours else fastest.title.removeprefix("vqtrain, ")
        lines.append(f"fastest here: {how}, {fastest.images_per_s:.3g} images/s")
    return lines


def compared(own: Row, other: Row) -> str:
    """Say how a row compares with another one."""
    rate, memory = own.images_per_s / other.images_per_s, own.bytes / other.bytes
    return f"{rate:.2f} times the images/s, {memory:.2f} of the memory"


def report_costs(costs: Costs, case: Case) -> dict[str, float]:
    """Print what is around the steps of a run, and return the shares."""
    shares = costs.shares(case)
    own = sum(share for name, share in shares.items() if name != "networks in validation")
    words = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    print(f"\naround a step of {case.setting}, at its intervals: {words}")
    print(f"  without the networks {own:.2%} of a step")
    return {name: round(share, 5) for name, share in shares.items()}


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """List what is measured: the adversarial part in each precision, the rest in one."""
    return [
        Case(
            setting=setting,
            is_adversarial=is_adversarial,
            precision=precision,
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            device=DEVICE,
        )
        for setting in arguments.settings
        for is_adversarial in ([True] if arguments.quick else [True, False])
        for precision in arguments.precisions
        if is_adversarial or precision == arguments.precisions[0]
    ]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def positive(kind: type) -> Any:  # noqa: ANN401  # a number of that kind
        def read(word: str) -> Any:  # noqa: ANN401
            number = kind(word)
            if number <= 0:
                raise argparse.ArgumentTypeError(f"must be above 0, got {word}")
            return number

        read.__name__ = kind.__name__
        return read

    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="default: all")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument("--image-size", type=positive(int), default=256 if CUDA else 128)
    parser.add_argument("--batch-size", type=positive(int), default=16 if CUDA else 2)
    parser.add_argument("--rounds", type=positive(int), default=3, help="turns of each contender")
    parser.add_argument(
        "--seconds",
        type=positive(float),
        default=4.5 if CUDA else 10.0,
        help="of each contender in all its turns; at least one step a turn counts",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the first setting, with the adversarial part, in the first precision, nothing "
        "compiled",
    )
    arguments = parser.parse_args()
    arguments.settings = arguments.settings or list(SETTINGS)
    arguments.precisions = arguments.precisions or (PRECISIONS[::-1] if CUDA else PRECISIONS[:1])
    if arguments.quick:
        del arguments.settings[1:]
        arguments.precisions = arguments.precisions[:1]
    if arguments.image_size % 32:
        parser.error(f"--image-size must be a multiple of 32, got {arguments.image_size}")
    return arguments


def main() -> None:
    """Measure all cases, print them, and print them again as JSON."""
    arguments = parse()
    quiet()
    device = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    peaks = {precision: peak_flops(precision, DEVICE) for precision in PRECISIONS}
    print(f"{device}, torch {torch.__version__}", flush=True)
    found = []
    shares: dict[str, float] = {}
    for number, case in enumerate(cases_of(arguments)):
        rows = rows_of(case, arguments)
        try:
            measure(rows, arguments)
            # Again, as other programs may have slowed the first time.
            peaks = {each: max(peaks[each], peak_flops(each, DEVICE)) for each in PRECISIONS}
            found.append(report(rows, peaks))
            if number == 0 and rows[0].seconds:
                tell(f"{case.setting}: what is around a step")
                shares = report_costs(rows[0].call(measure_costs, case), case)
        except VqtrainError as error:
            sys.exit(f"{case.setting}: {error}")
        finally:
            for row in rows:
                row.end()
    when = datetime.now(UTC).date().isoformat()
    facts = {"device": device, "torch": torch.__version__, "date": when, "around_a_step": shares}
    print()
    print(json.dumps({**facts, "cases": found}))


if __name__ == "__main__":
    main()
