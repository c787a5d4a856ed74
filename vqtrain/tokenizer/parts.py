"""The parts of a tokenizer, and to which of them its projections belong."""

from collections.abc import Collection, Sequence

PARTS = ("encoder", "codebook", "decoder")
# Between which parts each projection is.
PROJECTIONS = {"project_in": {"encoder", "codebook"}, "project_out": {"codebook", "decoder"}}


def modules_of(parts: Collection[str]) -> list[str]:
    """Name the modules of a tokenizer that some of its parts take with them.

    A projection goes with both parts that it connects, and with none of them alone. So the ids stay
    the same where the encoder and the codebook do, and what each id looks like where the codebook
    and the decoder do; and where a part is new, the projection to it is free to follow.

    Example:
        >>> modules_of(["codebook", "encoder"])
        ['encoder', 'codebook', 'project_in']
    """
    between = [name for name, both in PROJECTIONS.items() if both <= set(parts)]
    return [*(part for part in PARTS if part in parts), *between]


def listed(names: Sequence[str]) -> str:
    """Write a list of names, at least one.

    Example:
        >>> listed(["codebook", "decoder", "encoder"])
        'codebook, decoder and encoder'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
