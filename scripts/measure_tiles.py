"""Prints what tiles cost and change: peak memory of a large photograph, and PSNR on a smaller one.

The large one, 4096 x 3072 px, is a bundled photograph that is enlarged; it goes through the
tokenizer in tiles, in a process of its own. The smaller one is also computed as a whole, and the
two reconstructions are compared.
Run: python scripts/measure_tiles.py runs/demo/latest --tiles 256 512
"""

import argparse
import multiprocessing
import resource
import sys
from pathlib import Path

import skimage
import torch
from PIL import Image

from vqtrain.metrics.psnr import PSNR
from vqtrain.tokenizer.model import Tokenizer

LARGE = (4096, 3072)


def photograph(tokenizer: Tokenizer, size: tuple[int, int]) -> torch.Tensor:
    """Read a bundled photograph at a size, width before height."""
    with Image.open(Path(skimage.__file__).parent / "data/astronaut.png") as image:
        return tokenizer.preprocess(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


@torch.inference_mode()
def peak_of(path: str, tile: int) -> float:
    """Return the peak memory of a process that loads a tokenizer and codes the large photograph."""
    tokenizer = Tokenizer.from_pretrained(path)
    images = photograph(tokenizer, LARGE)
    tokenizer.decode(tokenizer.encode(images, tile=tile), tile=tile)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


@torch.inference_mode()
def main() -> None:
    """Print a line for each size of tiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer")
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 512], help="px")
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 768], help="of the smaller, px")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_pretrained(arguments.tokenizer)
    images = photograph(tokenizer, (arguments.size[0], arguments.size[1]))
    ids = tokenizer.encode(images)
    whole = tokenizer.to_pixels(tokenizer.decode(ids))
    for tile in arguments.tiles:
        tiled_ids = tokenizer.encode(images, tile=tile)
        tiled = tokenizer.to_pixels(tokenizer.decode(tiled_ids, tile=tile))
        psnr, same = float(PSNR()(tiled, whole)), (tiled_ids == ids).float().mean().item()
        original = tokenizer.to_pixels(images)
        own = [float(PSNR()(each, original)) for each in (tiled, whole)]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(peak_of, (arguments.tokenizer, tile))
        print(
            f"tile={tile}: {LARGE[0]} x {LARGE[1]} px in {peak:.2f} GiB; "
            f"{arguments.size[0]} x {arguments.size[1]} px: {psnr:.1f} dB from the whole, "
            f"{same:.0%} of the ids equal, {own[0]:.2f} dB from the original, "
            f"the whole {own[1]:.2f} dB"
        )


if __name__ == "__main__":
    main()
