"""Gives images with labels a caption each, in new tars: a field .txt, made of the label's name.

The label is the number in the field .cls. Captions of one label differ in their words, taken in
turn, unless --one is given. Run: python scripts/caption_labels.py OUT IN.tar... --names cat,dog
"""

import argparse
import io
import tarfile
from itertools import groupby
from pathlib import Path, PurePosixPath

TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a small photo of a {}",
    "a blurry photo of a {}",
    "a photo of the {}",
    "this is a {}",
    "a {}",
    "{}",
)


def caption(name: str, number: int, *, one: bool) -> str:
    """Word the number-th caption of a label.

    Example:
        >>> caption("airplane", 5, one=False), caption("airplane", 5, one=True)
        ('this is an airplane', 'a photo of an airplane')
    """
    text = TEMPLATES[0 if one else number % len(TEMPLATES)].format(name)
    return text.replace(f"a {name}", f"an {name}") if name[0] in "aeiou" else text


def main() -> None:
    """Write the tars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("tars", type=Path, nargs="+")
    parser.add_argument("--names", required=True, help="of the labels 0, 1, 2 and so on")
    parser.add_argument("--one", action="store_true", help="one wording for all images of a label")
    arguments = parser.parse_args()
    names = arguments.names.split(",")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in arguments.tars:
        with tarfile.open(path) as tar, tarfile.open(arguments.out / path.name, "w") as written:
            samples = groupby(tar, key=lambda member: PurePosixPath(member.name).stem)
            for number, (key, members) in enumerate(samples):
                contents = {
                    PurePosixPath(m.name).suffix: tar.extractfile(m).read() for m in members
                }
                name = names[int(contents[".cls"])]
                contents[".txt"] = caption(name, number, one=arguments.one).encode()
                for suffix, content in contents.items():
                    member = tarfile.TarInfo(f"{key}{suffix}")
                    member.size = len(content)
                    written.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main()
