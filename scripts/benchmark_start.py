"""Times how long vqtrain takes to start: a run up to its first step, helps, and wrong words.

Each is a process of its own, several times, and their medians are shown, in wall time and in CPU
time: on a machine that is busy with other things the latter says more. A run up to its first step
is timed from the start of the process to the end of that step, without compiling; the first one
fills the cache of the data's index and is not counted.
The last line is JSON.
Run: python scripts/benchmark_start.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from lightning.pytorch import Callback, LightningModule, Trainer

from vqtrain.build import kinds
from vqtrain.training.module import TokenizerTraining

FIRST_STEP = "first step"
# What is typed after a command so that it is wrong.
WRONG = {"train": "codebok.size=3", "sweep": "codebok.size=1,2", "doctor": "imagse=demo"}


class Stop(Callback):
    """Stops the run after its first step, and prints what CPU time its process has taken."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        """Print when the step has ended, and stop."""
        assert isinstance(pl_module, TokenizerTraining)
        if pl_module.step == 1:
            sys.stdout.write(f"\n{FIRST_STEP} {time.time()} {time.process_time()}\n")
            sys.stdout.flush()
            trainer.should_stop = True


def time_words(words: Sequence[str], code: int, repeats: int) -> tuple[float, float]:
    """Return the median wall and CPU time of a command line that ends with an exit code."""
    walls, cpus = [], []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        ended = run(words)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert ended.returncode == code, f"{words} ended with {ended.returncode}: {ended.stderr}"
    return median(walls), median(cpus)


def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run vqtrain in this folder, where it finds the class above."""
    return subprocess.run(
        [sys.executable, "-m", "vqtrain", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )


def time_first_step(words: Sequence[str], repeats: int) -> tuple[float, float]:
    """Return the median wall and CPU time from the start of a run to the end of its first step."""
    stop = f"callbacks.stop.kind={Path(__file__).stem}:Stop"
    walls, cpus = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats + 1):
            began = time.time()
            ended = run(["train", *words, stop, f"run_dir={folder}/{number}"])
            lines = [line for line in ended.stdout.splitlines() if line.startswith(FIRST_STEP)]
            assert lines, f"the run made no step: {ended.stderr}"
            if number > 0:
                at, cpu = map(float, lines[0].removeprefix(FIRST_STEP).split())
                walls.append(at - began)
                cpus.append(cpu)
    return median(walls), median(cpus)


def main() -> None:
    """Time all of it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("words", nargs="*", default=["data.train=demo"], help="of the run")
    options = parser.parse_args()
    results: dict[str, tuple[float, float]] = {}
    for command in kinds("command"):
        results[f"{command} --help"] = time_words([command, "--help"], 0, options.repeats)
        wrong = WRONG.get(command, "foo=1")
        results[f"{command} {wrong}"] = time_words([command, wrong], 2, options.repeats)
    shown = f"train {' '.join(options.words)}, to its first step"
    results[shown] = time_first_step(options.words, options.repeats)
    print("| command | time | CPU time |\n|---|---|---|")
    for name, (wall, cpu) in results.items():
        print(f"| `{name}` | {wall:.2f} s | {cpu:.2f} s |")
    print(json.dumps({name: {"wall_s": w, "cpu_s": c} for name, (w, c) in results.items()}))


if __name__ == "__main__":
    main()
