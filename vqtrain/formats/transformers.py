"""A folder for ``AutoModel.from_pretrained`` of transformers and diffusers, without vqtrain."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.data.media import IMAGE, SOUND, media_of
from vqtrain.errors import VqtrainError, require
from vqtrain.formats.parts.agreement import Agreement, Tolerance, compare
from vqtrain.formats.parts.card import Facts, write_card
from vqtrain.formats.parts.publishing import PublishedExporter
from vqtrain.formats.parts.transformers import write_model
from vqtrain.tokenizer.model import Tokenizer

# Another process loads the folder, in which our own code is not there.
LOAD = """
import sys

sys.modules.update(dict.fromkeys(("vqtrain", "einops", "jaxtyping")))
import torch
from transformers import AutoModel

folder, file, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
given = torch.load(file, weights_only=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    if given["token_ids"]:
        found = {
            "token_ids": [model.encode(batch) for batch in given["images"]],
            "decoded": [model.decode(batch) for batch in given["token_ids"]],
        }
    else:
        found = {"decoded": [model(batch).reconstruction for batch in given["images"]]}
torch.save(found, file)
"""

USAGE = """from transformers import AutoModel

model = AutoModel.from_pretrained("{path}", trust_remote_code=True)
{samples} = ...  # float [b, {shape}] in [-1, 1]
{through}"""
IMAGE_USAGE = """from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("{path}", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("{path}", trust_remote_code=True)
images = processor(Image.open("picture.png"))["pixel_values"]
{through}
pixels = processor.post_process(images)[0]  # an array [h, w, c]"""
THROUGH = {
    True: "token_ids = model.encode({0})\n{0} = model.decode(token_ids)",
    False: "z_q = model.quantize(model.latents({0})).z_q\n{0} = model.decode_latents(z_q)",
}


@final
class Transformers(PublishedExporter):
    """A folder with weights, code of its own and a card, for transformers and diffusers."""

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse to write what cannot be loaded here."""
        del tokenizer
        require(
            find_spec("transformers") is not None,
            "format=transformers is checked with transformers itself: pip install transformers",
        )

    def write(
        self, tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the folder, and load it with transformers in another process."""
        facts = Facts(
            license=self.license,
            dataset=self.dataset,
            library="transformers",
            usage=usage(tokenizer, self.push or "THIS_FOLDER"),
        )
        write_model(tokenizer, out)
        write_card(tokenizer, out, images[0], facts)
        return loaded_and_compared(tokenizer, out, images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the folder."""
        return (
            "from transformers import AutoModel\n"
            f"AutoModel.from_pretrained({str(out)!r}, trust_remote_code=True)"
        )


def usage(tokenizer: Tokenizer, path: str) -> str:
    """Write the lines of Python of the card."""
    media = media_of(len(tokenizer.downsampling))
    samples = f"{media.noun}s"
    through = THROUGH[tokenizer.codebook.num_codebooks > 0].format(samples)
    if media is IMAGE:
        return IMAGE_USAGE.format(path=path, through=through)
    axes = "t" if media is SOUND else "t, h, w"
    shape = f"{tokenizer.channels}, {axes}"
    return USAGE.format(path=path, samples=samples, shape=shape, through=through)


def loaded_and_compared(
    tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]
) -> Agreement:
    """Load what was written as others do, without vqtrain, and compare it.

    The code is the same, but weights that lie elsewhere in memory may change the last bit.

    Raises:
        VqtrainError: If it cannot be loaded, or does not agree with the tokenizer.
    """
    has_ids = tokenizer.codebook.num_codebooks > 0
    token_ids = [tokenizer.encode(batch) for batch in images] if has_ids else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "samples.pt")
        torch.save({"images": list(images), "token_ids": token_ids}, file)
        done = subprocess.run(
            [sys.executable, "-c", LOAD, out.absolute(), file, str(torch.get_num_threads())],
            cwd=folder,
            env={**os.environ, "HF_MODULES_CACHE": folder, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise VqtrainError(f"transformers cannot load what was written: {reason[-1]}")
        found = {name: iter(each) for name, each in torch.load(file, weights_only=True).items()}
    return compare(
        tokenizer,
        images,
        encode=(lambda _: next(found["token_ids"])) if has_ids else None,
        decode=lambda _: next(found["decoded"]),
        tolerance=Tolerance(pixels=1e-5),
    )
