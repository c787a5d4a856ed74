"""The plan of a pack: names, order and split of the samples."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import final

import numpy as np
from jaxtyping import Bool, Int64

from vqtrain.data.faults import Fault
from vqtrain.data.packing.base import PackSettings
from vqtrain.data.packing.samples import Sample, digest_of, read_sample
from vqtrain.data.packing.workers import map_images
from vqtrain.data.shards.folder import Identity
from vqtrain.data.shards.keys import unique_keys
from vqtrain.data.sources.fields import Fields, find_fields
from vqtrain.data.sources.index import SampleIndex, hold_out
from vqtrain.errors import BadSampleError, ConfigError

SPLITS = ("train", "val")
FORMAT, VERSION = "vqtrain-pack", 1


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Where each sample goes: a function of the images and the settings.

    Attributes:
        images: All images, in the order of their sources.
        fields: The other fields of their samples.
        settings: What the user set.
        keys: Name of each sample, unique, as WebDataset reads it.
        order: All positions in ``images``, in packing order.
        identity: What the pack is built from: equal identities give equal bytes.
    """

    images: SampleIndex
    fields: Fields
    settings: PackSettings
    keys: Sequence[str]
    order: Int64[np.ndarray, " n"]
    identity: Identity

    def side(self, split: str, val_ids: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " k"]:
        """Return the positions of one side of the split, in packing order."""
        return self.order[np.isin(self.order, val_ids) == (split == "val")]

    def sample(self, image_id: int) -> Sample | Fault:
        """Read and check a sample, and encode it again if that is asked."""
        return read_sample(self.images, self.fields, self.settings, image_id)

    def digest(self, image_id: int) -> str | None:
        """Hash an image; None if it cannot be read."""
        try:
            return digest_of(self.images.read(image_id))
        except BadSampleError:
            return None


def make_plan(images: SampleIndex, settings: PackSettings) -> Plan:
    """Decide on names and order.

    Samples are sorted by a hash of their names. So a tree that is sorted by class gives shards that
    each hold a fair sample of all classes.

    Raises:
        ConfigError: If images have weights, or a single image is to be split.
    """
    if (images.weights != 1).any():
        raise ConfigError(
            f"{images.media.key} have weights, which a pack does not hold: give them to train"
        )
    if images.stills.any():
        raise ConfigError("images among videos are packed by themselves: vqtrain pack images=...")
    if len(images) < 2 and settings.val != 0:
        raise ConfigError(f"{len(images)} {images.media.noun} cannot be split: give val=0")
    fields = find_fields(images)
    digest = blake2b(digest_size=16)
    for part in (images.digest, fields.index.digest):
        digest.update(part.encode())
    digest.update(fields.first.tobytes())
    keys = unique_keys([images.key(image_id) for image_id in range(len(images))])
    hashes = b"".join(blake2b(os.fsencode(key), digest_size=8).digest() for key in keys)
    return Plan(
        images=images,
        fields=fields,
        settings=settings,
        keys=keys,
        order=np.argsort(np.frombuffer(hashes, dtype=">u8"), kind="stable").astype(np.int64),
        identity={
            "format": FORMAT,
            "version": VERSION,
            "media": settings.media.word,
            "settings": asdict(settings),
            "images": {"count": len(images), "digest": digest.hexdigest()},
        },
    )


def split(plan: Plan, *, num_workers: int) -> Int64[np.ndarray, " m"]:
    """Hold images out for validation.

    ``auto`` holds out the images that ``data.val=auto`` would; a share, the first images in packing
    order. Images with equal bytes go where the first of them goes: a copy of a training image would
    make validation too good. Only images with the size of a held-out one are read for this.

    Returns:
        Positions in the plan's images.
    """
    images, val = plan.images, plan.settings.val
    is_val = np.zeros(len(images), dtype=bool)
    if isinstance(val, str):
        # hold_out ignores sizes, so they can carry the positions.
        numbered = replace(images, sizes=np.arange(len(images), dtype=np.int64))
        is_val[hold_out(numbered)[1].sizes] = True
    else:
        is_val[plan.order[: round(val * len(images))]] = True
    _keep_copies_together(plan, is_val, num_workers)
    return np.flatnonzero(is_val)


def _keep_copies_together(plan: Plan, is_val: Bool[np.ndarray, " n"], num_workers: int) -> None:
    images = plan.images
    sizes, inverse, counts = np.unique(images.sizes, return_inverse=True, return_counts=True)
    holds_val = np.bincount(inverse[is_val], minlength=len(sizes)) > 0
    ids = np.flatnonzero((holds_val & (counts > 1))[inverse])
    first: dict[str, int] = {}
    found = map_images(plan.digest, ids, images, num_workers=num_workers)
    for image_id, digest in zip(ids.tolist(), found, strict=True):
        if digest is not None:
            is_val[image_id] = is_val[first.setdefault(digest, image_id)]
