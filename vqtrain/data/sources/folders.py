"""Files below a local folder, sorted into images, tars and others."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from vqtrain.data.faults import Fault
from vqtrain.data.media import IMAGE, VIDEO, Media
from vqtrain.data.sources.frames import are_frames
from vqtrain.data.sources.scan import begins_as, is_hidden, is_tar, size_of

# Suffixes that are named where files are counted.
MAX_NAMED = 5


@final
@dataclass
class Listing:
    """Files of some folders.

    Attributes:
        media: What is looked for.
        samples: Those that are samples by their suffix, or without one by their first bytes; of
            clips also folders of frames.
        tars: Those that are tars by their suffix.
        others: All others, but for those that belong to a sample or a tar, such as ``a.txt`` to
            ``a.jpg``.
        faults: Folders that cannot be read.
    """

    media: Media = IMAGE
    samples: list[Path] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    others: set[Path] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def add(self, paths: Iterable[Path]) -> None:
        """Sort the files of one folder in."""
        others, stems = [], set()
        for path in paths:
            if is_tar(path.name):
                self.tars.append(path)
                stems.add("index")  # index.json lists the tars
            elif is_sample_file(path, self.media):
                self.samples.append(path)
            else:
                others.append(path)
                continue
            stems.add(path.stem)
        self.others.update(path for path in others if owner_of(path.name, stems) is None)

    def extend(self, other: "Listing") -> None:
        """Add what another listing holds."""
        self.samples += other.samples
        self.tars += other.tars
        self.others |= other.others
        self.faults += other.faults


def list_folder(folder: Path, media: Media = IMAGE) -> Listing:
    """List the samples below a folder, or its tars if it has no samples.

    Hidden files and folders are left out, links are followed. A folder that cannot be read is among
    the faults.
    """
    found = Listing(media)

    def note(error: OSError) -> None:
        path = str(Path(error.filename).absolute())
        reason = f"cannot read this folder: {error.strerror}"
        found.faults.append(Fault(shard=path, key="", reason=reason))

    clips: dict[str, set[str]] = defaultdict(set)  # folders of frames, by what they are in
    entered = set()  # otherwise a link back to a parent would be followed forever
    for parent, children, names in os.walk(folder, followlinks=True, onerror=note):
        real = os.path.realpath(parent)
        if real in entered:
            children.clear()
            continue
        entered.add(real)
        children[:] = sorted(child for child in children if not is_hidden(child))
        seen = [name for name in names if not is_hidden(name)]
        if media is VIDEO and are_frames(seen, children):
            found.samples.append(Path(parent))
            clips[str(Path(parent).parent)].add(Path(parent).name)
        else:
            found.add(Path(parent, name) for name in seen)
    if clips:
        owned = {p for p in found.others if owner_of(p.name, clips[str(p.parent)]) is not None}
        found.others -= owned
    if found.samples:
        found.others.update(found.tars)
        found.tars = []
    return found


def is_sample_file(path: Path, media: Media) -> bool:
    """Tell whether a file is a sample: by its suffix, or without one by its first bytes."""
    if path.suffix:
        return media.owns(path)
    try:
        size_of(path)  # refuses a pipe, on which reading would wait
        with path.open("rb") as file:
            return begins_as(media, file)
    except OSError:
        return False


def owner_of(name: str, stems: Collection[str]) -> str | None:
    """Find the stem of the sample that a file belongs to, or None.

    The longest one: 1.a.txt belongs to 1.a.jpg, not to 1.jpg.
    """
    while "." in name:
        name = name.rpartition(".")[0]
        if name in stems:
            return name
    return None


def describe_others(others: Mapping[str, int], media: Media = IMAGE) -> str:
    """Count files that were not taken by their suffix.

    Example:
        >>> describe_others({".txt": 1200, "": 1, ".avif": 3})
        '1,204 files are neither images nor tars: .txt 1,200, .avif 3, no suffix 1'
    """
    ordered = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{suffix or 'no suffix'} {count:,}" for suffix, count in ordered]
    more = [f"{len(counts) - MAX_NAMED} more suffixes"] if len(counts) > MAX_NAMED else []
    total = sum(others.values())
    what = f"files are neither {media.noun}s nor tars"
    if total == 1:
        what = f"file is neither {'an' if media is IMAGE else 'a'} {media.noun} nor a tar"
    return f"{total:,} {what}: {', '.join([*counts[:MAX_NAMED], *more])}"
