"""What tables and plots say about a metric that they know by its name alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import final

from vqtrain.build import kinds, resolve
from vqtrain.metrics.base import Metric


@final
@dataclass(frozen=True, kw_only=True)
class Declaration:
    """How a value is shown.

    Attributes:
        title: The name of the metric for people.
        unit: Of the value; empty for none.
        higher_is_better: Whether a higher value is better; None where neither is.
    """

    title: str
    unit: str = ""
    higher_is_better: bool | None = None

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value is better."""
        return self.higher_is_better is False

    @property
    def axis(self) -> str:
        """The title of an axis of values."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


CODEBOOK = {
    "usage": Declaration(title="Usage", unit="share of the ids", higher_is_better=True),
    "usage@tokens": Declaration(
        title="Usage", unit="share of the reachable ids", higher_is_better=True
    ),
    "perplexity": Declaration(title="Perplexity", unit="ids", higher_is_better=True),
    "entropy_bits": Declaration(title="Entropy", unit="bits", higher_is_better=True),
    "top1_share": Declaration(title="Share of the most frequent id"),
}

SAMPLES = {
    "fid": Declaration(title="FID", higher_is_better=False),
    "precision": Declaration(title="Precision", higher_is_better=True),
    "recall": Declaration(title="Recall", higher_is_better=True),
}
# Of models over ids.
CODE_LENGTH = {
    "bits_per_token": Declaration(title="Bits per token", higher_is_better=False),
    "bits_per_pixel": Declaration(title="Bits per pixel", higher_is_better=False),
}
OTHERS = {**CODEBOOK, **SAMPLES, **CODE_LENGTH}


# Of metrics from outside the package: what files say of them, by name.
_learned: dict[str, Declaration] = {}


def learn(directions: Mapping[str, object]) -> None:
    """Take from a file whether ``higher`` or ``lower`` values of its metrics are better.

    What our own metrics declare stays.
    """
    for name, better in directions.items():
        known = declaration(name)
        if known.higher_is_better is None and better in ("higher", "lower"):
            _learned[name] = replace(known, higher_is_better=better == "higher")


def declaration(name: str) -> Declaration:
    """Return what is declared about a metric of a log or a table.

    Args:
        name: A name as in ``metrics.jsonl`` or ``evaluation.json``: ``psnr``, ``val/psnr``,
            ``rfid_adm@5000``, ``val/codebook/usage``. One from outside the package has a title from
            its words, and the direction that ``learn`` has read from a file, or none.

    Example:
        >>> declaration("lpips_vgg"), declaration("rfid_adm@5000").title
        (Declaration(title='LPIPS vgg', unit='', higher_is_better=False), 'rFID adm@5000')
        >>> declaration("entropy_of_all")
        Declaration(title='Entropy of all', unit='', higher_is_better=None)
    """
    name = name.rpartition("/")[2]
    if name in OTHERS:
        return OTHERS[name]
    stem, at, count = name.partition("@")
    for metric in _kinds():
        if stem == metric.name or stem.startswith(f"{metric.name}_"):
            rest = stem.removeprefix(metric.name).replace("_", " ")
            return Declaration(
                title=f"{metric.title}{rest}{at}{count}",
                unit=metric.unit,
                higher_is_better=metric.higher_is_better,
            )
    return _learned.get(name) or Declaration(title=name.replace("_", " ").capitalize())


@cache
def _kinds() -> list[type[Metric]]:
    return [resolve("metric", word) for word in kinds("metric")]
