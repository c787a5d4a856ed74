"""One tokenizer through the stages of a probe, each of which is done once."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from vqtrain.app.parts.output import claimed
from vqtrain.app.parts.probes import stages
from vqtrain.app.parts.probes.folder import TOKENIZER, check_same, read_begun
from vqtrain.app.parts.probes.images import Sources
from vqtrain.app.parts.probes.options import ProbeOptions
from vqtrain.app.parts.probes.run import TokenizerRun, begin
from vqtrain.app.parts.sources import check_media
from vqtrain.app.tokenize import hash_of
from vqtrain.data.media import IMAGE, SOUND
from vqtrain.data.remote.urls import shareable
from vqtrain.errors import Interrupted, require
from vqtrain.evaluation.models import Model
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.generation import tables
from vqtrain.generation.form import TokenForm
from vqtrain.generation.results import FILE, write_probe
from vqtrain.launchers.parts.ranks import WIDTH
from vqtrain.reports import page
from vqtrain.shapes import by, in_words
from vqtrain.tokenizer.model import Tokenizer


def probe(run: TokenizerRun) -> int:
    """Probe one tokenizer, in this process, and return the exit code.

    Lightning calls the command line again for further processes of the training, which find that
    what comes before it is done.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return stages.train(run) or 0
    with claimed(run.folder, "probe"):
        write_probe(run.report, run.folder)
        return run_stages(run)


def open_run(
    path: str,
    words: Sequence[str],
    allow: Sequence[str],
    sources: Sources,
    folder: Path,
    settings: SampleSettings,
    options: ProbeOptions,
    *,
    out: str,
) -> TokenizerRun:
    """Find all that the probe of a tokenizer needs, and write nothing.

    Args:
        path: The tokenizer, as the user wrote it.
        words: All that was typed after the command.
        allow: Packages whose classes it may name.
        sources: The images.
        folder: Of the results.
        settings: How images are read, and on what all is computed.
        options: What else was asked for.
        out: The folder as the user wrote it.

    Raises:
        VqtrainError: If something is missing or does not fit, or the folder is of something else.
    """
    before = read_begun(folder, out)
    tokenizer = Tokenizer.from_pretrained(path, allow=allow)
    tokenizer.check_ids("probe a tokenizer that has ids, such as one made by vqtrain discretize")
    if sources.media is not None:
        check_media(sources.media, tokenizer, path)
    if before is not None and (folder / TOKENIZER).is_dir():
        kept = Tokenizer.from_pretrained(folder / TOKENIZER, allow=allow)
        require(
            hash_of(kept) == hash_of(tokenizer),
            f"out={out} holds a probe of another tokenizer: give another folder",
        )
    transform = settings.transform(tokenizer)
    images = sources.open(tokenizer, transform)
    report = begin(path, tokenizer, images, settings, options)
    if before is not None:
        check_same(before, report, out)
        known = {**before.settings, **report.settings}
        report = replace(report, settings=known, tokenizers=before.tokenizers)
    run = TokenizerRun(
        model=Model(
            name=report.tokenizers[0].name,
            folder=".",
            tokenizer=tokenizer,
            transform=transform,
            num_tokens=None,
        ),
        form=TokenForm.of(tokenizer, transform.sample_size),
        images=images,
        folder=folder,
        settings=settings,
        options=options,
        report=report,
        command=shareable(shlex.join(["vqtrain", "probe", *words])),
        console=Console(
            highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH
        ),
    )
    stages.check(run)
    return run


def run_stages(run: TokenizerRun) -> int:
    """Do what is left to do, and say what came of all."""
    found, media = run.found, run.model.transform.media
    article = "an" if media is IMAGE else "a"
    run.say("probe", str(run.folder))
    run.say(
        "tokenizer",
        f"{found.path}: {found.kind}, {found.size:,} codes, {by(found.token_shape)} tokens "
        f"{article} {media.noun} of {in_words(run.model.transform.sample_size)}",
    )
    run.say(
        f"{media.noun}s",
        f"{run.images.num_train:,} to train on, {run.images.num_val:,} to measure on"
        + (f", crop={run.settings.crop}" if media is not SOUND else ""),
    )
    left, code = run.left, None
    if run.images.is_same:
        run.say(
            "warning", "val holds the images that are trained on: no figure is of held-out ones"
        )
    if not left:
        run.console.print(f"{run.folder} was complete already", markup=False)
    try:
        if left:
            stages.prepare(run)
        for stage in left:
            code = stages.DO[stage](run)
            if code is not None:
                break
    except (KeyboardInterrupt, Interrupted):
        run.console.print("stopped: run the same command again to continue")
        raise
    if left:
        page.write(run.folder)
    tables.show(run.report, run.console)
    run.say("written", f"report.html and {FILE} in {run.folder}")
    return code or 0
