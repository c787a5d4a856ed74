"""``vqtrain tokenize``: images of any kind become token ids, by one process or by many."""

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, final

import torch
from jaxtyping import Shaped
from rich.console import Console
from torch import Tensor

from vqtrain.app.base import Command
from vqtrain.app.parts.latents import check_latents, data_words, latents_of
from vqtrain.app.parts.output import ending_in_order, folder_of, refuse_inside
from vqtrain.app.parts.progress import shown_progress
from vqtrain.app.parts.sources import SampleSources, check_media
from vqtrain.build import bind, resolve
from vqtrain.data.loading.batches import check_some
from vqtrain.data.media import IMAGE, VIDEO, media_of
from vqtrain.data.shards.folder import INDEX, PLAN, Progress, read_share
from vqtrain.data.shards.writer import progress_of
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.tokens.plan import Plan, TokenSettings, make_plan
from vqtrain.data.tokens.report import UNFINISHED, Report, read_report
from vqtrain.data.tokens.write import Describe, Encode, write
from vqtrain.errors import ConfigError, FailedError, Interrupted, VqtrainError, require
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.launchers.base import Ended, Job, Launcher
from vqtrain.launchers.local import Local
from vqtrain.ops.precision import widened
from vqtrain.ranges import at_least, within
from vqtrain.tokenizer.any_size import AnySize, layout_of
from vqtrain.tokenizer.any_size import encode as encode_any_size
from vqtrain.tokenizer.checks import LEAST_TILE
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.preprocessing import fitting

MAX_NAMED = 3
# Of a larger share of bad samples all that are tried first may be.
MOST_EXPECTED_BAD = 0.5
# The field of a sample that says how its ids become an image again.
LAYOUT_FIELD = "layout.json"


@final
@dataclass(frozen=True, kw_only=True)
class Launching:
    """The keys that say where the processes run; theirs are the others."""

    launcher: str
    devices: Annotated[int, at_least(1)]
    jobs: Annotated[int, at_least(1)]
    launcher_options: dict[str, object]

    def find_launcher(self) -> Launcher | None:
        """Return what is to run the processes, or None if this process does it alone.

        Raises:
            ConfigError: If there is no such launcher, or it cannot be had so.
        """
        launcher, devices, jobs = resolve("launcher", self.launcher), self.devices, self.jobs
        if launcher is Local:
            require(jobs == 1, f"jobs={jobs} is for a cluster: give devices={jobs}, or a launcher")
            require(not self.launcher_options, "launcher=local takes no launcher_options")
            return Local(processes=devices) if devices > 1 else None
        require(devices == 1, f"devices={devices} is for this machine: give jobs={devices}")
        return bind(launcher, self.launcher_options, where="launcher_options")


@final
class Tokenize(Command):
    """Turns images into token ids."""

    def run(
        self,
        *,
        words: list[str],
        settings: SampleSettings,
        any_size: AnySize,
        whole: bool,
        latents: bool,
        tokenizer: str,
        allow: list[str],
        sources: SampleSources,
        out: str,
        layout: str,
        shard_size: int,
        max_bad_fraction: Annotated[float, within(0, 1)],
        share: str,
        launching: Launching,
    ) -> int:
        """Tokenize, and say what came of it."""
        part = read_share(share)
        folder = folder_of(out)
        images, media = sources.named("vqtrain tokenize tokenizer=PATH images=IMAGES")
        refuse_inside(folder, images)
        found = launching.find_launcher()
        if found is not None and part.of > 1:
            raise ConfigError(f"share={share} is of one process: leave out the launcher")
        console = Console(highlight=False, soft_wrap=True)
        model = Tokenizer.from_pretrained(tokenizer, allow=allow)
        check_media(media, model, tokenizer)
        any_size.check(model.encoder)
        is_any = any_size.keeps_whole or any_size.tile is not None
        plan = make_token_plan(
            model,
            open_samples(images, media, role="training"),
            settings,
            shard_size=shard_size,
            layout=layout,
            any_size=any_size if is_any else None,
            whole=whole,
            latents=latents,
        )
        was_complete = (folder / INDEX).is_file()
        if not (was_complete or is_any or whole) and max_bad_fraction <= MOST_EXPECTED_BAD:
            check_some(plan.images, plan.settings.transform)
        report: Report | None
        try:
            with (
                ending_in_order(),
                shown_progress(
                    console, "looking for the fields of the samples", media.noun
                ) as progress,
            ):
                if found is not None:
                    parts = max(launching.devices, launching.jobs)
                    commands = commands_of(words, settings, parts, type(found))
                    report = launch(found, commands, folder, progress, kind=plan.kind)
                else:
                    report = write(
                        plan,
                        out=folder,
                        encode=encoder(
                            model, settings, any_size if is_any else None, whole, latents
                        ),
                        describe=describer(model, any_size) if is_any else None,
                        share=part,
                        num_workers=settings.workers,
                        max_bad_fraction=max_bad_fraction,
                        progress=progress,
                    )
        except (KeyboardInterrupt, Interrupted):
            console.print("stopped, batches are kept: run the same command again to continue")
            raise
        if was_complete:
            console.print(f"{folder} was complete already", markup=False)
        conclude(console, folder, share, report)
        return 0


def make_token_plan(
    tokenizer: Tokenizer,
    images: SampleIndex,
    settings: SampleSettings,
    *,
    shard_size: int,
    layout: str,
    any_size: AnySize | None = None,
    whole: bool = False,
    latents: bool = False,
) -> Plan:
    """Decide what is written.

    Images are cropped to one size, or with ``any_size`` kept whole; of clips and sounds a part is
    taken, or with ``whole`` all. With ``latents`` those of a continuous tokenizer are written.

    Raises:
        ConfigError: If the tokenizer makes no ids, or no latents, or a setting does not fit it.
    """
    if latents:
        require(
            not whole, "whole=true keeps ids of clips and sounds, and latents=true is of images"
        )
        check_latents(tokenizer, any_size, layout)
    else:
        tokenizer.check_ids("write its latents by latents=true, or let vqtrain discretize add ids")
    if any_size is not None:
        require(
            settings.image_size is None,
            "image_size crops images, which max_tokens, pad, tile and thumbnail keep whole: leave "
            "it out",
        )
        size = [any_size.tile or LEAST_TILE * unit for unit in tokenizer.unit]
        settings = replace(settings, image_size=size, batch_size=1)
    kept: dict[str, object] | None = None
    if any_size is not None:
        kept = {"image_size": None, **asdict(any_size)}
    if whole:
        kept, settings = whole_keys(tokenizer, settings), replace(settings, batch_size=1)
    transform = settings.transform(tokenizer)
    token_settings = TokenSettings(
        transform=transform,
        batch_size=settings.batch_size,
        precision=settings.precision,
        device=find_device(settings.device).type,
        shard_size=shard_size,
        layout=layout,
        any_size=kept,
    )
    config = {key: tokenizer.config[key] for key in ("image", "downsampling", "token_ids")}
    shape: tuple[int, ...] | None = None
    if latents:
        grid = tokenizer.encoder.grid(transform.sample_size)
        require(len(grid) == 2, "latents=true needs latents on rows and columns, not a sequence")
        shape = (*grid, tokenizer.codebook.dim)
    elif not kept:
        shape = tokenizer.token_shape(*transform.sample_size)
    return make_plan(
        images,
        settings=token_settings,
        tokenizer={"sha256": hash_of(tokenizer), **config},
        shape=shape,
        size=None if latents else tokenizer.vocab_size,
    )


def whole_keys(tokenizer: Tokenizer, settings: SampleSettings) -> dict[str, object]:
    """Describe clips or sounds that are kept whole, by key.

    Raises:
        ConfigError: If they are images, or are to have a size.
    """
    media = media_of(len(tokenizer.unit))
    require(
        media is not IMAGE,
        "whole=true is for clips and sounds: max_tokens, pad and thumbnail keep images whole",
    )
    sizes: dict[str, object] = {"length": settings.length}
    if media is VIDEO:
        sizes = {"frames": settings.frames, "image_size": settings.image_size}
    for key, size in sizes.items():
        require(size is None, f"{key}={size} cuts what whole=true keeps: leave one of them out")
    return {**sizes, "whole": True}


def hash_of(tokenizer: Tokenizer) -> str:
    """Hash what a tokenizer is: its modules, its pixels and all weights, wherever it lies."""
    digest = sha256()
    known = {**tokenizer.specification, "image": tokenizer.config["image"]}
    digest.update(json.dumps(known, sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describer(tokenizer: Tokenizer, any_size: AnySize) -> Describe:
    """Return what says of an image's size how its ids are put back."""

    def describe(size: tuple[int, int]) -> tuple[str, bytes]:
        layout = layout_of(size, tokenizer, any_size)
        return LAYOUT_FIELD, layout.to_json()

    return describe


def encoder(
    tokenizer: Tokenizer,
    settings: SampleSettings,
    any_size: AnySize | None = None,
    whole: bool = False,
    latents: bool = False,
) -> Encode:
    """Put a tokenizer on its device, and return what turns pixels into ids, or latents, there."""
    placed = settings.placed(tokenizer)

    @torch.inference_mode()
    def encode(pixels: Shaped[Tensor, "b c *size"]) -> Shaped[Tensor, " b *tokens"]:
        if whole:
            pixels = fitting(pixels[0], placed.unit, placed.token_shape)[None]
        own = pixels.to(placed.device, non_blocking=True)
        images = placed.to_images(own, widened(placed.dtype))
        try:
            with settings.autocast():
                if any_size is not None:
                    return encode_any_size(placed, images, any_size).token_ids[None]
                if latents:
                    return latents_of(placed, images)
                return placed.encode(images)
        except torch.OutOfMemoryError as error:
            raise VqtrainError(
                f"the device has too little memory for batch_size={settings.batch_size}: give a "
                "smaller one, and another out"
            ) from error

    return encode


def commands_of(
    words: Sequence[str], settings: SampleSettings, parts: int, launcher: type[Launcher]
) -> list[list[str]]:
    """Write the command line of each process: that of this one, with its share."""
    launching = {field.name for field in fields(Launching)}
    kept = [word for word in words if re.split(r"[.=]", word)[0] not in launching]
    if settings.num_workers is None and launcher is Local:  # they share the cores of this machine
        kept.append(f"num_workers={max(1, settings.workers // parts)}")
    return [["tokenize", *kept, f"share={number}/{parts}"] for number in range(parts)]


def launch(
    launcher: Launcher,
    commands: Sequence[Sequence[str]],
    out: Path,
    progress: Progress,
    *,
    kind: str = "tokens",
) -> Report:
    """Run all processes to their ends, and read what they have written.

    Raises:
        VqtrainError: If one has failed.
    """
    state = out / UNFINISHED
    logs = state.absolute() / "logs"

    def tick() -> None:
        with suppress(OSError, ValueError, KeyError):  # before the first process has begun
            total = json.loads((state / PLAN).read_text())["images"]["count"]
            progress("all processes", progress_of(state), total)

    ends: dict[int, Ended] = {}
    launcher.launch(
        [Job(name=str(number), commands=[command]) for number, command in enumerate(commands)],
        logs=logs,
        tick=tick,
        done=lambda job, end: ends.update({int(job.name): end}),
    )
    failed = [(number, end) for number, end in sorted(ends.items()) if end.code != 0]
    if not failed:
        shutil.rmtree(state, ignore_errors=True)  # where all was complete, logs alone
        return read_report(out, kind=kind)
    number, first = failed[0]
    if len(failed) == len(ends) and all(end.code == 2 for _, end in failed):
        shutil.rmtree(logs)
        with suppress(OSError):  # leaves nothing behind if nothing was begun
            state.rmdir()
            out.rmdir()
        raise ConfigError(first.reason)
    more = f", and {len(failed) - 1} more have failed" if len(failed) > 1 else ""
    raise FailedError(
        f"share {number}/{len(ends)} ended with {first.code}: {first.reason}{more}; the logs are "
        f"in {logs}; run the same command again to continue"
    )


def conclude(console: Console, out: Path, share: str, report: Report | None) -> None:
    """Say what there is now, and what can be done with it."""
    if report is None:
        console.print(f"share {share} is done; {INDEX} comes with the last share", markup=False)
        return
    skipped, kind = report["skipped"], "latents" if "latents" in report else "tokens"
    form = report["latents"] if kind == "latents" else report["tokens"]
    ids = f", {form['size']:,} ids" if "size" in form else ""
    files = "1 file" if len(report["files"]) == 1 else f"{len(report['files']):,} files"
    console.print(
        f"{kind:<12}{report['samples']:,} samples in {files}, "
        f"{report['bytes'] / 1e6:,.1f} MB: {form['dtype']} {form['shape'] or 'of any shape'}{ids}",
        markup=False,
    )
    where = f", all in {out / INDEX}" if skipped else ""
    console.print(f"skipped     {len(skipped):,}{where}", markup=False)
    for fault in skipped[:MAX_NAMED]:
        name = fault["key"] or fault["shard"]
        console.print(f"{'':<12}{name}: {fault['reason']}", markup=False)
    if kind == "latents":
        words = data_words(report)
        console.print("train on them:")
        line = shlex.join(["vqtrain", "train", "experiment=latents", f"data.train={out}", *words])
        console.print(f"  {line}", markup=False)
        return
    console.print("read them:")
    code = f"from vqtrain.data.tokens.read import read; print(next(read({json.dumps(str(out))})))"
    console.print(f"  python -c {shlex.quote(code)}", markup=False)
