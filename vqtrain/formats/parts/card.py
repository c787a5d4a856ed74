"""A model card: what a tokenizer is, how it is used, and what was measured."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import yaml
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vqtrain.data.media import IMAGE, SOUND, Media, media_of
from vqtrain.drawing.panels import in_rows
from vqtrain.errors import require
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.shapes import by, in_words
from vqtrain.tokenizer.discretized import origin_of
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.rate import rate_in, size_in

CARD_FILE, SAMPLES_FILE = "README.md", "samples.png"
# Of the example: ids of each axis.
FEW_IDS = 8
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")

CARD = """---
{front}---

# {name}

{article} {word} tokenizer: it turns {nouns} into {result}, and
back.

![originals above reconstructions]({samples})

## Use

```python
{usage}
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
@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says that a tokenizer does not know of itself.

    Attributes:
        license: Of the weights, by the hub's word for it; None if it is not said.
        dataset: What the tokenizer was trained on: a dataset of the hub or any words; None if it is
            not said.
        library: The hub's word for what loads the files.
        usage: Lines of Python that use them.
    """

    license: str | None
    dataset: str | None
    library: str
    usage: str


def check_license(word: str | None) -> None:
    """Refuse what is no word of the hub for a license.

    Raises:
        ConfigError: If it is none.
    """
    require(
        word is None or LICENSE.fullmatch(word) is not None,
        f"license must be the hub's word for it, such as mit, apache-2.0 or other, got {word!r}",
    )


@torch.no_grad()
def write_card(
    tokenizer: Tokenizer, out: Path, samples: Float[Tensor, "b c *size"], facts: Facts
) -> None:
    """Write the card, with originals above reconstructions and the ids of the first of them."""
    rate = rate_in(tokenizer.training_summary)
    picture = in_rows(samples, tokenizer(samples).samples, rate=rate)
    Image.fromarray(picture).save(out / SAMPLES_FILE)
    ids = tokenizer.encode(samples[:1])[0] if tokenizer.codebook.num_codebooks else None
    example = example_of(ids, media_of(samples.ndim - 2).noun)
    (out / CARD_FILE).write_text(card(tokenizer, facts, example), encoding="utf-8")


def card(tokenizer: Tokenizer, facts: Facts, example: str = "") -> str:
    """Write a model card, with the front matter that the hub reads.

    Args:
        tokenizer: What it is of.
        facts: The rest.
        example: A paragraph about ids; empty for none.
    """
    summary = dict(tokenizer.training_summary)
    found, commands = summary.pop("metrics", None), summary.pop("commands", None)
    origin = origin_of({"discretized": summary.pop("discretized", None)})
    metrics = found if isinstance(found, Mapping) else {}
    media = media_of(len(tokenizer.downsampling))
    article = "An" if media is IMAGE else "A"
    name = str(summary.get("name") or f"{article} {media.word} tokenizer")
    front = front_matter(tokenizer, facts, name, metrics, media)
    rows = ({"data": facts.dataset} if facts.dataset else {}) | summary
    rows |= {"discretized": origin} if origin else {}
    training = [table(rows) if rows else "Not known."]
    if isinstance(commands, list) and commands:
        training.append("```sh\n" + "\n".join(map(str, commands)) + "\n```")
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=name,
        article=article,
        word=media.word,
        nouns=f"{media.noun}s",
        result=(
            "grids of integers from a learned vocabulary"
            if tokenizer.codebook.num_codebooks
            else "continuous latents"
        ),
        usage=facts.usage,
        samples=SAMPLES_FILE,
        tokens=table(tokens_of(tokenizer)) + example,
        network=table(network_of(tokenizer)),
        training="\n\n".join(training),
        metrics=table(metrics) if metrics else "Not measured.",
    )


def front_matter(
    tokenizer: Tokenizer, facts: Facts, name: str, metrics: Mapping[str, object], media: Media
) -> dict[str, object]:
    """Say to the hub what it is; metrics become those of its ``model-index``."""
    front: dict[str, object] = {"library_name": facts.library}
    if media is IMAGE:
        front["pipeline_tag"] = "image-feature-extraction"
    if facts.license:
        front["license"] = facts.license
    if facts.dataset and re.fullmatch(r"[\w.-]+/[\w.-]+", facts.dataset):
        front["datasets"] = [facts.dataset]
    # A part inside another has the same word, or one that is no tag.
    front["tags"] = list(
        dict.fromkeys([f"{media.word}-tokenizer", "vqtrain", *kinds_of(tokenizer)])
    )
    measured = [
        {"type": key.rpartition("/")[2], "name": declaration(key).title, "value": round(value, 4)}
        for key, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    if measured:
        data = (
            f"{facts.dataset}, validation" if facts.dataset else "validation data of the training"
        )
        result = {
            "task": {"type": "image-to-image", "name": f"Reconstruction of {media.noun}s"},
            "dataset": {"type": facts.dataset or "validation", "name": data},
            "metrics": measured,
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def example_of(token_ids: Tensor | None, noun: str) -> str:
    """Show the first ids of a sample, of which one is called ``noun``."""
    if token_ids is None:
        return ""
    shown = token_ids
    while shown.ndim > 2:  # the first codebook, the first frame
        shown = shown[0]
    rows = shown[..., :FEW_IDS].reshape(-1, min(FEW_IDS, shown.shape[-1]))[:FEW_IDS].tolist()
    width = max(len(str(each)) for row in rows for each in row)
    lines = "\n".join(" ".join(f"{each:{width}}" for each in row) for row in rows)
    few = by((len(rows), len(rows[0])))
    what = f"The first {few} of the {by(token_ids.shape)} ids of the first {noun} above"
    return f"\n\n{what}:\n\n```\n{lines}\n```"


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
