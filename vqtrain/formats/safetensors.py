"""A tokenizer directory to publish: with a model card, and on the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.data.media import IMAGE, SOUND, VIDEO, media_of
from vqtrain.formats.parts.agreement import (
    Agreement,
    Tolerance,
    compare,
)
from vqtrain.formats.parts.card import Facts, write_card
from vqtrain.formats.parts.publishing import PublishedExporter
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer

# What is preprocessed, in the card.
GIVEN = {
    IMAGE: "picture)  # a PIL picture, or an array [h, w, c]",
    VIDEO: "frames)  # an array [t, h, w, c]",
    SOUND: "values)  # an array [t] or [c, t]",
}


@final
class Safetensors(PublishedExporter):
    """The tokenizer directory with a model card, also on the Hugging Face hub."""

    def write(
        self, tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the directory and its card, which shows the first images."""
        facts = Facts(
            license=self.license,
            dataset=self.dataset,
            library="vqtrain",
            usage=usage(tokenizer, self.push),
        )
        tokenizer.save_pretrained(out)
        write_card(tokenizer, out, images[0], facts)
        return compare_with(reloaded(tokenizer, out), tokenizer, images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the directory."""
        return f"from vqtrain import Tokenizer\nTokenizer.from_pretrained({str(out)!r})"


def usage(tokenizer: Tokenizer, repository: str | None) -> str:
    """Write the lines of Python of the card."""
    media = media_of(len(tokenizer.downsampling))
    samples = f"{media.noun}s"
    path = f"hf://{repository}" if repository else "THIS_FOLDER"
    pixels = "" if media is SOUND else f"; tokenizer.to_pixels({samples}) for pixels"
    through = ("token_ids = tokenizer.encode({0})", "{0} = tokenizer.decode(token_ids)")
    if not tokenizer.codebook.num_codebooks:
        through = (
            "z_q = tokenizer.quantize(tokenizer.latents({0})).z_q",
            "{0} = tokenizer.decode_latents(z_q)",
        )
    return "\n".join(
        [
            "from vqtrain import Tokenizer\n",
            f'tokenizer = Tokenizer.from_pretrained("{path}")',
            f"{samples} = tokenizer.preprocess({GIVEN[media]}",
            through[0].format(samples),
            f"{through[1].format(samples)}  # in [-1, 1]{pixels}",
        ]
    )


def reloaded(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """Load what was written; classes of others that could be saved may be loaded."""
    return Tokenizer.from_pretrained(folder, allow=storage.packages_in(tokenizer.specification))


def compare_with(
    loaded: Tokenizer, tokenizer: Tokenizer, images: Sequence[Float[Tensor, "_ c *_"]]
) -> Agreement:
    """Compare a tokenizer with what was loaded; nothing may differ."""
    exactly = Tolerance(ids_frac=0.0, pixels=0.0)
    if tokenizer.codebook.num_codebooks == 0:
        return compare(
            tokenizer,
            images,
            encode=None,
            decode=lambda batch: loaded(batch).samples,
            tolerance=exactly,
        )
    return compare(tokenizer, images, encode=loaded.encode, decode=loaded.decode, tolerance=exactly)
