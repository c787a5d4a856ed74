"""What ``vqtrain train`` says at the end of a run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtrain.data.media import IMAGE, media_in
from vqtrain.tokenizer.storage import packages_in
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.checkpoints import TrainingCheckpoint
from vqtrain.training.console import RunConsole, duration
from vqtrain.training.run import Outcome


def conclude(
    console: RunConsole,
    run_dir: Path,
    config: Mapping[str, Any],
    outcome: Outcome,
    bad_samples: BadSamples,
    checkpoint: TrainingCheckpoint | None,
    *,
    seconds: float,
) -> None:
    """Print how the run ended, where the results are, and what to try next."""
    mine, allow = shlex.quote(str(run_dir)), allowing(config)
    if outcome.stopped is not None:
        console.line(f"{outcome.stopped}; continue with: vqtrain train resume={mine}")
        if not outcome.is_validated:
            console.line(
                "this step was not validated, so that the run ends soon; measure it with: "
                f"vqtrain evaluate tokenizer={mine}{allow}"
            )
        if outcome.signal_number is not None:
            console.line(
                f"there is no report yet; write it with: vqtrain report path={mine}{allow}"
            )
        return
    since = f", from step {checkpoint['training']['step']:,} on" if checkpoint else ""
    rows = {name: f"{value:.4f}" for name, value in outcome.results.items()}
    rows |= {
        "steps": str(outcome.step),
        "time": duration(seconds) + since,
        "images": str(run_dir / "images"),
        "tokenizer": str(run_dir / "tokenizer"),
    }
    if bad_samples.known:
        rows["skipped"] = f"{len(bad_samples.known)}, listed in {bad_samples.path}"
    console.table("finished", rows)
    if outcome.conclusion is not None:
        console.line(outcome.conclusion)
    console.line("try next:")
    for command in suggestions(config, mine, allow):
        console.line(f"  {command}")


def suggestions(config: Mapping[str, Any], mine: str, allow: str) -> list[str]:
    """Return commands that make sense after a run.

    Args:
        config: Of the run.
        mine: Its directory, as it is typed.
        allow: As of ``allowing``.
    """
    media = media_in(config["data"])
    source = f"{media.key}=A_FOLDER_OF_{media.key.upper()}"
    commands = [f"vqtrain reconstruct tokenizer={mine} {source}{allow}"]
    if config["codebook"]["kind"] not in ("continuous", "kl"):  # a graph gives or takes ids
        commands.append(f"vqtrain export tokenizer={mine} format=onnx{allow}")
    is_demo = config["data"]["train"] == "demo" and media is IMAGE
    if is_demo and config["name"] != "small_vqgan":
        own = "data.train=A_FOLDER_OF_IMAGES name=mine"
        return [*commands, f"vqtrain train experiment=small_vqgan {own}"]
    return [*commands, f"vqtrain evaluate tokenizer={mine}{allow}"]


def allowing(config: Mapping[str, Any]) -> str:
    """Return the word that lets a command read the run's own classes, after a space, if it has any.

    Example:
        >>> kinds = {"encoder": {"kind": "mine.parts:Encoder"}, "codebook": {}, "decoder": {}}
        >>> allowing(kinds)
        " 'allow=[mine]'"
    """
    packages = packages_in(config)
    word = f"allow=[{','.join(packages)}]"
    return f" {shlex.quote(word)}" if packages else ""
