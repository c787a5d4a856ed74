"""A tokenizer directory to publish: with a model card, and on the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vqtrain.data.media import IMAGE, SOUND, VIDEO, media_of
from vqtrain.drawing.panels import in_rows
from vqtrain.errors import VqtrainError
from vqtrain.formats.base import Exporter
from vqtrain.formats.parts.agreement import (
    Agreement,
    Tolerance,
    compare,
)
from vqtrain.shapes import by, in_words
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.rate import rate_in, size_in

SAMPLES_FILE = "samples.png"

# What is preprocessed, in the card.
GIVEN = {
    IMAGE: "picture)  # a PIL picture, or an array [h, w, c]",
    VIDEO: "frames)  # an array [t, h, w, c]",
    SOUND: "values)  # an array [t] or [c, t]",
}

# License and data are not known here: whoever publishes it says them.
CARD = """---
library_name: vqtrain
tags:
- {word}-tokenizer
- {encoder}
- {codebook}
---

# {name}

{article} {word} tokenizer: it turns {nouns} into grids of integers from a learned vocabulary, and
back.

![originals above reconstructions]({samples})

## Use

```python
from vqtrain import Tokenizer

tokenizer = Tokenizer.from_pretrained("{path}")
{nouns} = tokenizer.preprocess({given}
token_ids = tokenizer.encode({nouns})
{nouns} = tokenizer.decode(token_ids)  # in [-1, 1]{pixels}
```

## Tokens

{tokens}

## Network

{network}

## Training

{training}

## Metrics

{metrics}
"""


@final
class Safetensors(Exporter):
    """The tokenizer directory with a model card, also on the Hugging Face hub.

    Args:
        push: Repository on the hub, ``organization/name``; None for none. One that does not exist
            is made, and only its owner can see it.
    """

    def __init__(self, *, push: str | None = None) -> None:
        self.push = push

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the directory and its card, which shows the first images, and publish it."""
        if self.push is not None:
            make_repository(self.push)  # before the work for what cannot be published
        tokenizer.save_pretrained(out)
        save_samples(tokenizer, images[0], out / SAMPLES_FILE)
        (out / "README.md").write_text(card(tokenizer, self.push), encoding="utf-8")
        agreement = compare_with(reloaded(tokenizer, out), tokenizer, images)
        if self.push is not None:
            upload(out, self.push)
        return agreement

    def example(self, out: Path) -> str:
        """Return lines of Python that load the directory."""
        return f"from vqtrain import Tokenizer\nTokenizer.from_pretrained({str(out)!r})"


def reloaded(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """Load what was written; classes of others that could be saved may be loaded."""
    kinds = storage.kinds_in(list(tokenizer.specification.values()))
    packages = [kind.partition(":")[0].partition(".")[0] for kind in kinds if ":" in kind]
    return Tokenizer.from_pretrained(folder, allow=packages)


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


def make_repository(repository: str) -> None:
    """Make a repository on the hub unless it is there.

    Raises:
        VqtrainError: If nobody is logged in, the hub cannot be reached, or it refuses.
    """
    from huggingface_hub import HfApi, get_token  # nearly half a second, for this alone

    if get_token() is None:
        raise VqtrainError(f"cannot publish {repository}: you are not logged in, run hf auth login")
    try:
        HfApi().create_repo(repository, private=True, exist_ok=True)
    except Exception as error:  # of the hub's library and of whichever HTTP client it has
        raise refused(repository, error) from error


def upload(folder: Path, repository: str) -> None:
    """Bring the files of a folder to a repository on the hub.

    Raises:
        VqtrainError: If that fails.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # as above
        raise refused(repository, error) from error


def refused(repository: str, error: Exception) -> VqtrainError:
    """Say in a sentence why a repository cannot be made or filled."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return VqtrainError(f"cannot publish {repository}: {reason[0]}")


@torch.no_grad()
def save_samples(tokenizer: Tokenizer, samples: Float[Tensor, "b c *size"], file: Path) -> None:
    """Draw originals above reconstructions."""
    rate = rate_in(tokenizer.training_summary)
    Image.fromarray(in_rows(samples, tokenizer(samples).samples, rate=rate)).save(file)


def card(tokenizer: Tokenizer, repository: str | None) -> str:
    """Write a model card, with the front matter that the hub reads."""
    summary = dict(tokenizer.training_summary)
    metrics = summary.pop("metrics", None)
    media, kinds = media_of(len(tokenizer.downsampling)), kinds_of(tokenizer)
    article = "An" if media is IMAGE else "A"
    name = str(summary.get("name") or f"{article} {media.word} tokenizer")
    return CARD.format(
        encoder=kinds[0],
        codebook=kinds[1],
        name=name,
        article=article,
        word=media.word,
        nouns=f"{media.noun}s",
        given=GIVEN[media],
        pixels="" if media is SOUND else f"; tokenizer.to_pixels({media.noun}s) for pixels",
        samples=SAMPLES_FILE,
        path=f"hf://{repository}" if repository else "THIS_FOLDER",
        tokens=table(tokens_of(tokenizer)),
        network=table(network_of(tokenizer)),
        training=table(summary) if summary else "Not known.",
        metrics=table(metrics) if isinstance(metrics, Mapping) and metrics else "Not measured.",
    )


def kinds_of(tokenizer: Tokenizer) -> list[str]:
    """List the kinds of encoder, codebook and decoder."""
    return [str(part["kind"]) for part in tokenizer.specification.values()]


def tokens_of(tokenizer: Tokenizer) -> dict[str, object]:
    """Say what the ids are."""
    codebook, media = tokenizer.codebook, media_of(len(tokenizer.downsampling))
    rows: dict[str, object] = {
        "ids": tokenizer.vocab_size,
        "ids at each position": codebook.num_codebooks,
        f"{'values' if media is SOUND else 'pixels'} at each position": by(tokenizer.downsampling),
        "order of ids": codebook.id_order,
        "choice of an id": codebook.selection_rule,
    }
    size = size_in(tokenizer.training_summary)
    if size and codebook.num_codebooks:
        article = "an" if media is IMAGE else "a"
        what = f"ids of {article} {media.noun} of {in_words(size)}"
        rows[what] = by(tokenizer.token_shape(*size))
    return rows


def network_of(tokenizer: Tokenizer) -> dict[str, object]:
    """Say of each module its kind and its size."""
    return {
        part: f"`{kind}`, {sum(tensor.numel() for tensor in module.state_dict().values()):,} values"
        for part, kind, module in zip(
            tokenizer.specification,
            kinds_of(tokenizer),
            (tokenizer.encoder, tokenizer.codebook, tokenizer.decoder),
            strict=True,
        )
    }


def table(rows: Mapping[str, object]) -> str:
    """Write names and values as a table."""
    lines = ["| | |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {shown(value)} |" for name, value in rows.items()])


def shown(value: object) -> str:
    """Write a value as people read it."""
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if type(value) is int else str(value)
