"""The images of a run, opened and tried before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from vqtrain.app.parts.settings import Settings
from vqtrain.data.loading.batches import check_some
from vqtrain.data.loading.buckets import bucket_sizes, clip_buckets, make_buckets, with_ratios
from vqtrain.data.loading.texts import find_texts
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.video import VideoData
from vqtrain.data.sources.find import training_and_validation
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import ConfigError, require
from vqtrain.losses.alignment.base import Alignment, TextAlignment
from vqtrain.metrics.base import Metric, TextMetric
from vqtrain.training.checkpoints import TrainingCheckpoint
from vqtrain.training.data_module import StreamState, TrainingData


@dataclass(frozen=True, kw_only=True)
class TextsNeeded:
    """Which images of a run need a text each."""

    training: bool
    validation: bool


def texts_needed(alignment: Alignment | None, metrics: Sequence[Metric]) -> TextsNeeded:
    """Say which images need texts.

    Raises:
        ConfigError: If a metric needs a space of images and texts, and there is none.
    """
    for metric in metrics:
        require(
            isinstance(alignment, TextAlignment) or not isinstance(metric, TextMetric),
            f"metrics: {metric.name} needs a space of images and texts, which "
            "loss/alignment=contrastive trains",
        )
    return TextsNeeded(
        training=alignment is not None and alignment.needs_text,
        validation=any(isinstance(metric, TextMetric) for metric in metrics),
    )


def open_data(
    settings: Settings,
    seed: int,
    checkpoint: TrainingCheckpoint | None,
    downsampling: Sequence[int],
    texts: TextsNeeded,
) -> TrainingData:
    """Index the images, and take those to validate on evenly from all that there are.

    Args:
        settings: Those of the run.
        seed: Of the run.
        checkpoint: What it continues from.
        downsampling: Of the encoder, by which the sizes of buckets can be divided.
        texts: Which images need a text each.

    Raises:
        ConfigError: If images cannot have several sizes.
        CheckpointError: If the order of the checkpoint cannot be continued.
        DataError: If there are no such images, or one that needs a text has none.
    """
    training, validation = training_and_validation(
        settings.data.train, settings.data.val, settings.data.media
    )
    buckets = None
    group = settings.data
    if isinstance(training, SampleIndex):
        if isinstance(group, VideoData) and group.has_images and group.frames > 1:
            require(len(training.clips) > 0, "data.train holds images alone: give data.frames=1")
            buckets = clip_buckets(training.stills, group.sample_size)
        check_some(
            training if buckets is None else training.clips, group.transform, where=" of data.train"
        )
    if isinstance(group, ImageData) and group.aspect == "buckets":
        if not isinstance(training, SampleIndex):
            raise ConfigError(
                "data.aspect=buckets needs images whose sizes are known: pack what pipe: writes"
            )
        training = with_ratios(training, group.transform)
        buckets = make_buckets(
            training.ratios,
            bucket_sizes(group.image_size, downsampling),
            least=group.batch_size,
        )
    limit = settings.trainer.limit_val
    if limit is not None and limit < len(validation):
        validation = validation.select(np.arange(limit) * len(validation) // limit)
    data = TrainingData(
        training=training,
        validation=validation,
        settings=settings.data,
        seed=seed,
        start=checkpoint["training"]["samples"] if checkpoint else 0,
        num_nodes=settings.trainer.num_nodes,
        buckets=buckets,
        training_texts=find_texts(training, "data.train") if texts.training else None,
        validation_texts=find_texts(validation, "data.val") if texts.validation else None,
    )
    places = checkpoint["training"].get("places") if checkpoint else None
    if places is not None:
        data.continue_from(cast(StreamState, places), settings.trainer.world_size)
    return data
