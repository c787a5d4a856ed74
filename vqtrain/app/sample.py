"""``vqtrain sample``: images drawn from the transformer of a probe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, final

import torch
from jaxtyping import Int64
from rich.console import Console
from torch import Tensor

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order, fill_whole, new_folder
from vqtrain.app.parts.probes.folder import TOKENIZER, is_of_several
from vqtrain.app.parts.probes.transformer import draw, read_model
from vqtrain.app.parts.progress import shown_progress
from vqtrain.errors import ConfigError, require
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.generation.base import Condition
from vqtrain.generation.form import TokenForm
from vqtrain.generation.grid import image_grid, nearly_square
from vqtrain.generation.results import FILE, read_probe
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.paths import expand
from vqtrain.ops.precision import TRAINED_PRECISIONS
from vqtrain.ranges import at_least, one_of
from vqtrain.shapes import Pixels, sides
from vqtrain.tokenizer.model import Tokenizer

GRID, IMAGES = "grid.png", "images"


@final
class Sample(Command):
    """Draws images."""

    def run(
        self,
        *,
        probe: str,
        allow: list[str],
        out: str,
        count: Annotated[int, at_least(1)],
        classes: list[int] | int | None,
        text: str | None,
        sampling: Sampling,
        batch_size: Annotated[int, at_least(1)],
        seed: Annotated[int, at_least(0)],
        device: str,
        precision: Annotated[str, one_of(*TRAINED_PRECISIONS)],
    ) -> int:
        """Draw, and say where the images are."""
        folder = expand(probe)
        check_probe(folder, probe)
        (found,) = read_probe(folder).tokenizers
        require(
            found.transformer is not None,
            f"probe={probe} has no transformer that is trained to its end: continue its vqtrain "
            "probe, with probe=transformer",
        )
        target = new_folder(out)
        settings = SampleSettings(
            image_size=found.image_size,
            crop="resize",
            batch_size=batch_size,
            num_workers=0,
            device=device,
            precision=precision,
        )
        tokenizer = Tokenizer.from_pretrained(folder / TOKENIZER, allow=allow)
        form = TokenForm.of(tokenizer, sides(found.image_size))
        model = read_model(folder, tokenizer, form)
        chosen = [classes] if isinstance(classes, int) else classes
        conditions, columns = choose(model.condition, chosen, text, count)
        console = Console(highlight=False, soft_wrap=True)
        with ending_in_order(), shown_progress(console, "drawing") as progress:

            def fill(unfinished: Path) -> None:
                drawn: list[Pixels] = []
                for pixels in draw(
                    model, tokenizer, conditions, sampling, seed=seed, settings=settings
                ):
                    drawn.append(pixels)
                    progress(str(target), sum(map(len, drawn)), len(conditions))
                save(torch.cat(drawn), columns, unfinished)

            fill_whole(target, fill)
        console.print(f"{'images':<12}{len(conditions):,} in {target / IMAGES}", markup=False)
        console.print(f"{'grid':<12}{target / GRID}", markup=False)
        return 0


def check_probe(folder: Path, probe: str) -> None:
    """Refuse a folder that is not of the probe of one tokenizer.

    Raises:
        ConfigError: If it is not; the message names folders that are.
    """
    if is_of_several(folder):
        inner = sorted(f"probe={file.parent}" for file in folder.glob(f"*/{FILE}"))
        raise ConfigError(
            f"probe={probe} is of several tokenizers: give one of its folders, {', '.join(inner)}"
        )
    require(
        (folder / FILE).is_file() and (folder / TOKENIZER).is_dir(),
        f"probe={probe} is not a folder of vqtrain probe: {FILE} or {TOKENIZER} is missing",
    )


def choose(
    condition: Condition, classes: Sequence[int] | None, text: str | None, count: int
) -> tuple[Int64[Tensor, "n m"], int]:
    """Return the condition of each image, and how many images make a row.

    Raises:
        ConfigError: If the model is conditioned on something else, or has no such class.
    """
    is_of_classes, is_of_text = condition.length == 1, condition.length > 1
    require(
        classes is None or is_of_classes,
        "classes are for a transformer that was trained with transformer.condition=cls",
    )
    require(
        text is None or is_of_text,
        "text is for a transformer that was trained with transformer.condition=txt",
    )
    if not is_of_classes:
        one = encode(text or "", condition) if is_of_text else torch.zeros(1, 0, dtype=torch.int64)
        return one.expand(count, -1), nearly_square(count)
    names = [*range(min(condition.size, count))] if classes is None else classes
    for name in names:
        require(
            0 <= name < condition.size,
            f"classes must be numbers from 0 to {condition.size - 1}, got {name}",
        )
    require(
        0 < len(names) <= count,
        f"count must be at least {max(1, len(names))}, an image for each class, got {count}",
    )
    each = count // len(names)
    return torch.tensor(names)[:, None].repeat_interleave(each, dim=0), each


def encode(text: str, condition: Condition) -> Int64[Tensor, "1 m"]:
    """Write a text as its first bytes, with the last of all values where there are none left."""
    known = [*text.encode()[: condition.length]]
    rest = [condition.size - 1] * (condition.length - len(known))
    return torch.tensor([[*known, *rest]])


def save(pixels: Pixels, columns: int, folder: Path) -> None:
    """Write each image, and all of them in one."""
    (folder / IMAGES).mkdir()
    for number, image in enumerate(pixels):
        image_grid(image[None], 1).save(folder / IMAGES / f"{number:05d}.png")
    image_grid(pixels, columns).save(folder / GRID)
