"""Clips made in code: a camera moves over the demo's photographs, and things move before it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw, ImageFilter

from vqtrain.data.sources.demo import HELD_OUT, TRAINING, Role, photographs, write_tar
from vqtrain.drawing.mp4 import encode_mp4

# Increase it whenever the clips change, so that old ones are not used.
RECIPE = 1

# Of each photograph: 210 clips to train on and 32 to validate on.
NAMES: Mapping[Role, Sequence[str]] = {"training": TRAINING, "validation": HELD_OUT}
COUNTS: dict[Role, int] = {"training": 15, "validation": 16}
# In px. Clips to train on are larger, so that crops of them differ.
SIDES: Mapping[Role, int] = {"training": 80, "validation": 64}
FRAMES: Mapping[Role, int] = {"training": 24, "validation": 17}
FPS = 12
# Photographs are reduced, as their own pixels are finer than what a small clip shows of them.
SHORT_SIDE = 200
# Pixels of a photograph to one of a clip, turns in degrees and paths in px of a clip.
ZOOM, TURN_DEG, PATH_PX = (0.8, 1.25), 25.0, (12.0, 48.0)
# Diameters of the things that move, as a share of the clip's side.
THING_FRAC = (0.2, 0.45)
CRF, KEY_EVERY = 10, 8


def write(folder: Path) -> None:
    """Write ``training.tar`` and ``validation.tar``, 210 and 32 clips, in some seconds."""
    for role in NAMES:
        clips = ((f"{key}.mp4", _encode(frames)) for key, frames in make_clips(role))
        write_tar(folder / f"{role}.tar", clips)


def make_clips(role: Role) -> Iterator[tuple[str, UInt8[np.ndarray, "t h w 3"]]]:
    """Make the clips of a role, the same each time: their keys and frames."""
    names, side = NAMES[role], SIDES[role]
    folder = photographs()
    pictures = [_reduced(folder / name) for name in names]
    for place, name in enumerate(names):
        for number in range(COUNTS[role]):
            generator = np.random.default_rng(list(f"{RECIPE} {role} {name} {number}".encode()))
            other = pictures[int(generator.integers(len(pictures)))]
            things = [_thing(other, side, generator) for _ in range(int(generator.integers(3)))]
            camera = _camera(pictures[place].size, side, generator)
            times = np.linspace(0, 1, FRAMES[role])
            frames = [_frame(pictures[place], camera, things, side, time) for time in times]
            yield f"{Path(name).stem}-{number:02d}", np.stack(frames)


@final
@dataclass(frozen=True, kw_only=True)
class _Motion:
    """A window that moves, turns and grows over a picture, or a thing over a clip.

    Attributes:
        centers: Where its center is first and last: x and y, in px.
        zooms: Pixels of what is below it to one of its own, first and last.
        turn: By how much it turns, in radians.
    """

    centers: Float64[np.ndarray, "2 2"]
    zooms: tuple[float, float]
    turn: float

    def at(self, time: float, middle: float) -> Float64[np.ndarray, "3 3"]:
        """Return the matrix from its own pixels, of which ``middle`` is the center, to those below.

        Args:
            time: From 0 to 1.
            middle: Half of its side, in px.
        """
        x, y = self.centers[0] + time * (self.centers[1] - self.centers[0])
        zoom = self.zooms[0] * (self.zooms[1] / self.zooms[0]) ** time
        cos, sin = zoom * np.cos(self.turn * time), zoom * np.sin(self.turn * time)
        forward = np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
        return forward @ np.array([[1, 0, -middle], [0, 1, -middle], [0, 0, 1.0]])


def _camera(size: tuple[int, int], side: int, generator: np.random.Generator) -> _Motion:
    zooms = np.exp(generator.uniform(math.log(ZOOM[0]), math.log(ZOOM[1]), size=2))
    turn = np.radians(generator.uniform(-TURN_DEG, TURN_DEG))
    # The corners of the window stay inside of the picture.
    margin = side / 2 * zooms.max() * (np.cos(turn) + np.sin(abs(turn))) + 1
    low, high = np.full(2, margin), np.array(size) - margin
    start = generator.uniform(low, high)
    end = np.clip(start + zooms.mean() * _path(generator), low, high)
    return _Motion(centers=np.stack([start, end]), zooms=(zooms[0], zooms[1]), turn=float(turn))


def _path(generator: np.random.Generator) -> Float64[np.ndarray, " 2"]:
    angle = generator.uniform(0, 2 * np.pi)
    return generator.uniform(*PATH_PX) * np.array([np.cos(angle), np.sin(angle)])


def _thing(
    picture: Image.Image, side: int, generator: np.random.Generator
) -> tuple[Image.Image, _Motion]:
    """Cut a disk out of a picture, and draw how it moves over a clip."""
    diameter = round(side * generator.uniform(*THING_FRAC))
    left, top = (int(generator.integers(length - diameter)) for length in picture.size)
    disk = picture.crop((left, top, left + diameter, top + diameter)).convert("RGBA")
    mask = Image.new("L", disk.size)
    ImageDraw.Draw(mask).ellipse((2, 2, diameter - 3, diameter - 3), fill=255)
    disk.putalpha(mask.filter(ImageFilter.GaussianBlur(1)))
    start = generator.uniform(0, side, size=2)
    turn = float(np.radians(generator.uniform(-90, 90)))
    centers = np.stack([start, start + _path(generator)])
    return disk, _Motion(centers=centers, zooms=(1.0, 1.0), turn=turn)


def _frame(
    picture: Image.Image,
    camera: _Motion,
    things: list[tuple[Image.Image, _Motion]],
    side: int,
    time: float,
) -> UInt8[np.ndarray, "h w 3"]:
    frame = _warped(picture, camera.at(time, side / 2), side).convert("RGBA")
    for disk, motion in things:
        below = np.linalg.inv(motion.at(time, disk.width / 2))
        frame.alpha_composite(_warped(disk, below, side))
    return np.asarray(frame.convert("RGB"))


def _warped(picture: Image.Image, matrix: Float64[np.ndarray, "3 3"], side: int) -> Image.Image:
    rows = tuple(matrix[:2].ravel().tolist())
    return picture.transform((side, side), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)


def _reduced(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").reduce(max(1, min(image.size) // SHORT_SIDE))


def _encode(frames: UInt8[np.ndarray, "t h w 3"]) -> bytes:
    times = range(len(frames) + 1)
    return encode_mp4(frames, times=times, tick=Fraction(1, FPS), crf=CRF, key_every=KEY_EVERY)
