"""Says how sharp the reconstructions in a run's pictures are, as a share of the originals above.

Sharpness is the mean absolute Laplacian of the gray values, which the grid of a bad upsampling
raises too: look at the pictures. Run: python scripts/sharpness.py runs/demo/latest/images/*.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def sharpness(gray: np.ndarray) -> float:
    """Return the mean absolute difference of a pixel from the mean of its four neighbors."""
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float(np.abs(gray[1:-1, 1:-1] - around / 4).mean())


def relative_sharpness(file: str | Path) -> float:
    """Return the sharpness of the reconstructions in a picture, as a share of the originals'."""
    with Image.open(file) as image:
        gray = np.asarray(image.convert("L"), dtype=float)
    size = len(gray) // 2
    tiles = [gray[:, left : left + size] for left in range(0, gray.shape[1], size)]
    made, originals = (
        np.mean([sharpness(half) for half in halves])
        for halves in zip(*((tile[size:], tile[:size]) for tile in tiles), strict=True)
    )
    return float(made / originals)


def main() -> None:
    """Print one line a picture."""
    for file in sys.argv[1:]:
        print(f"{relative_sharpness(file):.3f}  {file}")


if __name__ == "__main__":
    main()
