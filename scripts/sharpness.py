"""Says how sharp the reconstructions in a run's pictures are, as a share of the originals above.

Sharpness is the mean absolute Laplacian of the gray values, which the grid of a bad upsampling
raises too: look at the pictures. Run: python scripts/sharpness.py runs/demo/latest/images/*.png
"""

import sys

import numpy as np
from PIL import Image


def sharpness(gray: np.ndarray) -> float:
    """Return the mean absolute difference of a pixel from the mean of its four neighbors."""
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float(np.abs(gray[1:-1, 1:-1] - around / 4).mean())


def main() -> None:
    """Print one line a picture."""
    for file in sys.argv[1:]:
        gray = np.asarray(Image.open(file).convert("L"), dtype=float)
        size = len(gray) // 2
        tiles = [gray[:, left : left + size] for left in range(0, gray.shape[1], size)]
        made, originals = (
            np.mean([sharpness(half) for half in halves])
            for halves in zip(*((tile[size:], tile[:size]) for tile in tiles), strict=True)
        )
        print(f"{made / originals:.3f}  {file}")


if __name__ == "__main__":
    main()
