"""Statistics of the originals' features, kept so that no set of originals is computed twice."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import version
from typing import final

import numpy as np
import torch

from vqtrain import distributed
from vqtrain.data.cache import cache_folder, write_whole
from vqtrain.data.decoding.base import Transform
from vqtrain.data.media import VIDEO
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError
from vqtrain.metrics.base import SetMetric
from vqtrain.metrics.parts.moments import Moments
from vqtrain.version import __version__

# Images that are read after one another by one rank; as many are asked for ahead of time.
BLOCK = 64
# What decodes, resizes or computes: another version of it may do so differently.
LIBRARIES = ("torch", "torchvision", "pillow")


def content_digest(index: SampleIndex) -> str:
    """Hash the encoded bytes of all images; collective.

    Names, folders and the order do not matter: a copy in another folder is the same content. The
    encoded bytes are hashed and not the pixels, which are known only after the pass over the images
    that this hash can shorten; how they become pixels is in the key of ``Reference``. Every file is
    read once, which costs little compared with Inception.

    Raises:
        DataError: If a server does not answer.
    """
    blocks = [
        np.arange(first, min(first + BLOCK, len(index))) for first in range(0, len(index), BLOCK)
    ][distributed.rank() :: distributed.world_size()]
    digests: list[bytes] = []
    for number, block in enumerate(blocks):
        for ahead in blocks[number + 1 : number + 2]:
            index.read_ahead(ahead)
        digests += [_digest(index, image_id) for image_id in block.tolist()]
    every = sorted(distributed.all_gather_lists(digests))
    return blake2b(b"".join(every), digest_size=16).hexdigest()


def _digest(index: SampleIndex, image_id: int) -> bytes:
    try:
        encoded = index.read(image_id)
    except BadSampleError:
        encoded = b""  # it is skipped by the evaluation, too
    return blake2b(encoded, digest_size=16).digest()


@final
class Reference:
    """The place in the cache for the moments of one set of originals, under one metric.

    Whoever changes the files, the transform, the weights, a library or the kind of device gets
    another place. It can be deleted at any time, and a damaged file counts as none.

    Args:
        index_digest: What ``content_digest`` says of the originals.
        metric: Computes the features.
        described: How its values come about, with the hash of its weights.
        device: Where it computes them.
        transform: From encoded images to pixels.

    Raises:
        DataError: If there is no folder for caches.
    """

    def __init__(
        self,
        *,
        index_digest: str,
        metric: SetMetric,
        described: Mapping[str, str],
        device: torch.device,
        transform: Transform,
    ) -> None:
        self._dim = metric.dim
        key = {
            "content": index_digest,
            "transform": asdict(transform),
            "metric": metric.name,
            # Not the name of the file of weights: their hash tells them apart.
            "described": {k: value for k, value in described.items() if k != "weights"},
            "device": device.type,
            "vqtrain": __version__,
            **{name: version(name) for name in LIBRARIES},
            **({"av": version("av")} if transform.media is VIDEO else {}),
        }
        digest = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16)
        self.path = cache_folder() / "references" / f"{digest.hexdigest()}.npz"

    def load(self, device: torch.device) -> Moments | None:
        """Read the statistics; None if they are not there or damaged.

        Args:
            device: Where they are put.
        """
        try:
            # Of a damaged file that it opens itself, numpy leaves the file open.
            with np.load(io.BytesIO(self.path.read_bytes())) as file:
                sums = file["sums"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        if sums.shape != (1 + self._dim, 1 + self._dim) or sums.dtype != np.float64:
            return None
        moments = Moments(dim=self._dim, device=device)
        moments.sums = torch.from_numpy(sums).to(device)
        return moments

    def save(self, moments: Moments) -> None:
        """Keep the statistics of all ranks; called by one of them.

        A full disk costs the cache and not the evaluation. Features that are not finite are not
        kept.
        """
        if not moments.sums.isfinite().all():
            return
        content = io.BytesIO()
        np.savez(content, sums=moments.sums.cpu().numpy())
        with suppress(OSError):
            write_whole(self.path, content.getvalue())
