"""What ``vqtrain discretize`` will do, checked before anything is written."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

from rich.console import Console

from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import CommandLine, compose, read_command_line
from vqtrain.app.parts.discretizing import words as typed
from vqtrain.app.parts.grid import command_words
from vqtrain.app.parts.metrics import reconstruction_metrics
from vqtrain.app.parts.output import folder_of, refuse_inside
from vqtrain.app.parts.settings import Settings
from vqtrain.app.tokenize import hash_of, make_token_plan
from vqtrain.build import in_context, split_kind
from vqtrain.data.media import IMAGE
from vqtrain.data.remote.urls import shareable
from vqtrain.data.sources.find import open_both
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.tokens.plan import Plan
from vqtrain.errors import require
from vqtrain.evaluation.measure import measuring_device
from vqtrain.evaluation.models import choose_metrics, load_metrics
from vqtrain.evaluation.settings import SampleSettings, find_device
from vqtrain.metrics.base import Metric, SetMetric
from vqtrain.tokenizer.discretized import swapped
from vqtrain.tokenizer.model import Tokenizer

SHARD_SIZE = 10_000


@final
@dataclass(frozen=True, kw_only=True)
class DiscretizePlan:
    """All that is known before the first stage.

    Attributes:
        out: The folder of the results.
        command: The command line, without passwords.
        path: The continuous tokenizer, as the user wrote it.
        original: The same, loaded.
        digest: Its hash.
        train: The images to train on.
        val: The images to validate and to measure on.
        settings: How they are read for the latents and the table.
        metrics: Of the table, without their weights.
        weights: Paths of their weights, by name.
        codebook_words: Of the training on latents, without those that say what they are like.
        decoder_words: Of the training of the decoder, without the tokenizer that it starts from.
        decoder_steps: Of that training.
        codebook: A codebook that has nothing to train, as a specification; None for another one.
        max_steps: Of the training on latents.
        devices: That each training needs.
        allow: Packages outside vqtrain whose classes the tokenizer may name.
        max_bad_fraction: Share of the images that may be unreadable.
        is_printed: Whether the command lines are only shown.
    """

    out: Path
    command: str
    path: str
    original: Tokenizer
    digest: str
    train: SampleIndex
    val: SampleIndex
    settings: SampleSettings
    metrics: Sequence[Metric]
    weights: Mapping[str, str | None]
    codebook_words: Sequence[str]
    decoder_words: Sequence[str]
    decoder_steps: int
    codebook: Mapping[str, object] | None
    max_steps: int
    devices: int
    allow: Sequence[str]
    max_bad_fraction: float
    is_printed: bool

    @property
    def described(self) -> dict[str, object]:
        """What must be the same when the command continues, by what it is called."""
        images = {
            side: {"count": len(index), "digest": index.digest}
            for side, index in {"train": self.train, "val": self.val}.items()
        }
        steps = [*typed.fixed(self.decoder_words), f"decoder_steps={self.decoder_steps}"]
        return {
            "tokenizer": self.digest,
            "images": images,
            "codebook": typed.fixed(self.codebook_words),
            "decoder": steps,
        }

    @cached_property
    def latents(self) -> Mapping[str, Plan]:
        """The plans of the shards of latents, by the name of their folder."""
        return {
            side: make_token_plan(
                self.original,
                index,
                self.settings,
                shard_size=SHARD_SIZE,
                layout="webdataset",
                latents=True,
            )
            for side, index in {"train": self.train, "val": self.val}.items()
        }

    def load_metrics(self, console: Console) -> Mapping[Metric, Mapping[str, str]]:
        """Load the metrics that fit the images and whose weights are found."""
        transform = self.settings.transform(self.original)
        fitting, unfit = choose_metrics(self.metrics, [transform], is_typed=False)
        device = measuring_device(find_device(self.settings.device))
        loaded, missing = load_metrics(fitting, given=self.weights, device=device, is_typed=False)
        for note in [*unfit, *missing]:
            console.print(note, markup=False)
        return loaded


def make_plan(
    command_line: CommandLine,
    words: Sequence[str],
    *,
    tokenizer: str,
    out: str,
    decoder_steps: int,
    decoder_lr: float,
    metrics: Sequence[str | dict[str, object]],
) -> DiscretizePlan:
    """Load the tokenizer, find the images, and build what both trainings need.

    Args:
        command_line: What was typed for the trainings.
        words: All that was typed.
        tokenizer: Value of the key, as are those below.
        out: Folder of the results.
        decoder_steps: Steps of the decoder's training; 0 for none.
        decoder_lr: Its learning rate.
        metrics: Of the table.

    Raises:
        VqtrainError: If a stage is not possible.
    """
    folder, given = folder_of(out), command_words(command_line)
    typed.check(given)
    allowing = [word for word in given if typed.key_of(word) == "allow"]
    allow = compose("train", read(command_line, allowing), is_whole=False)["allow"]
    original = Tokenizer.from_pretrained(tokenizer, allow=allow)
    require(
        original.codebook.num_codebooks == 0,
        f"tokenizer={tokenizer} has token ids already, of codebook="
        f"{original.specification['codebook']['kind']}: give a continuous one, of vqtrain convert "
        "or of codebook=kl",
    )
    require(
        len(original.downsampling) == IMAGE.axes,
        f"tokenizer={tokenizer} is not of images, and its latents are none to train on",
    )
    keys = [typed.key_of(word) for word in given]
    size = original.training_summary.get("image_size")
    of_decoder = [
        *typed.of_decoder(given),
        *([] if "data.image_size" in keys or size is None else [f"data.image_size={size}"]),
        *("trainer.freeze=[encoder,codebook]", f"trainer.max_steps={max(1, decoder_steps)}"),
        *(f"optim.lr={decoder_lr}", "optim.schedule=cosine", "optim.warmup_steps=5%"),
    ]
    config = compose("train", read(command_line, [*of_decoder, f"init_from={tokenizer}"]))
    checked = Settings.of(config)
    data = checked.data
    refuse_inside(folder, data.train)
    if decoder_steps > 0:
        build_module(config, checked)
    train, val = open_both(data.train, data.val, data.media, keys=("data.train", "data.val"))
    settings = SampleSettings(
        image_size=config["data"]["image_size"],
        crop=config["data"]["crop"] if "data.crop" in keys else "resize",
        batch_size=config["data"]["batch_size"],
        num_workers=config["data"]["num_workers"],
        device="cpu" if config["trainer"]["accelerator"] == "cpu" else "auto",
        precision="32-true",
    )
    of_codebook, codebook, max_steps = check_codebook(command_line, given, original, settings)
    plan = DiscretizePlan(
        out=folder,
        command=shareable(shlex.join(["vqtrain", "discretize", *words])),
        path=tokenizer,
        original=original,
        digest=hash_of(original),
        train=train,
        val=val,
        settings=settings,
        metrics=metrics_of(metrics),
        weights=config["weights"],
        codebook_words=of_codebook,
        decoder_words=of_decoder,
        decoder_steps=decoder_steps,
        codebook=codebook,
        max_steps=max_steps,
        devices=checked.trainer.devices,
        allow=allow,
        max_bad_fraction=config["data"]["max_bad_fraction"],
        is_printed=command_line.print_config,
    )
    assert plan.latents, "which checks that images fit"
    return plan


def check_codebook(
    command_line: CommandLine, given: Sequence[str], original: Tokenizer, settings: SampleSettings
) -> tuple[list[str], dict[str, object] | None, int]:
    """Build the codebook as the training on latents would.

    Its ``dim``, where it has one and none was typed, is that of the latents.

    Returns:
        The words of the training, the codebook if it has nothing to train, and the steps.

    Raises:
        ConfigError: If there is no such codebook, it has no ids, or it does not fit the tokenizer.
    """
    dim, grid = (
        original.codebook.dim,
        original.encoder.grid(settings.transform(original).sample_size),
    )
    known = [f"data.channels={dim}", f"data.image_size=[{','.join(map(str, grid))}]"]
    words = ["experiment=latents", *typed.of_codebook(given)]
    there = [*known, "data.range=[-1,1]", "data.train=latents"]
    config = compose("train", read(command_line, [*words, *there]))
    if "dim" in config["codebook"] and "codebook.dim" not in map(typed.key_of, given):
        words.append(f"codebook.dim={dim}")
        config = compose("train", read(command_line, [*words, *there]))
    checked, kind = Settings.of(config), config["codebook"]["kind"]
    built = build_module(config, checked).tokenizer.codebook
    require(built.num_codebooks > 0, f"codebook={kind} has no ids: choose one that has")
    if built.in_channels == built.dim:
        return words, None, checked.trainer.max_steps
    require(
        original.codebook.in_channels == 2 * dim,
        f"codebook={kind} reads means and log-variances, and this tokenizer is deterministic: take "
        "a codebook that is trained on latents, such as fsq or grouped",
    )
    codebook = in_context("codebook", split_kind(config["codebook"]), {})
    swapped(original, codebook)
    return words, codebook, 0


def metrics_of(entries: Sequence[str | dict[str, object]]) -> list[Metric]:
    """Build the metrics of the table.

    Raises:
        ConfigError: If one cannot be built, or is of all images together.
    """
    metrics = reconstruction_metrics(entries)
    for metric in metrics:
        require(
            not isinstance(metric, SetMetric),
            f"metrics: {metric.name} is of all images together, and these are of each: measure it "
            "by vqtrain evaluate, for tokenizer=A,B of several folders here",
        )
    return metrics


def read(command_line: CommandLine, words: Sequence[str]) -> CommandLine:
    """Read words with the folder of configs that was typed."""
    return replace(read_command_line(words), config_dir=command_line.config_dir)
