"""A Space of the Hugging Face hub: a gradio app on which people try a tokenizer of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import yaml
from jaxtyping import Float
from torch import Tensor

from vqtrain.formats.parts import space_app
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.pictures import check_pictures
from vqtrain.formats.parts.publishing import PublishedExporter
from vqtrain.formats.transformers import Transformers
from vqtrain.tokenizer.model import Tokenizer

# The front matter chooses gradio and Python of a Space; these are the versions that were tried.
GRADIO, PYTHON = "6.31.0", "3.11"
REQUIREMENTS = f"gradio=={GRADIO}\nnumpy\npillow\ntorch\ntransformers>=5.24\n"

README = """---
{front}---

The app shows the tokens of a picture and what the tokenizer makes of them, and decodes tokens that
you change. The tokenizer is in `{folder}`, with all code that it needs. To try it elsewhere:

```sh
pip install -r requirements.txt
python {app}
```
"""


@final
class Space(PublishedExporter):
    """A folder with the app and the tokenizer, also as a Space of the Hugging Face hub."""

    repository_kind = "space"

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse what the app cannot show."""
        check_pictures(tokenizer, "format=space")

    def write(
        self, tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write the tokenizer as ``format=transformers`` does, compare it, and write the app."""
        folder = out / space_app.FOLDER
        folder.mkdir()
        model = Transformers(license=self.license, dataset=self.dataset)
        agreement = model.export(tokenizer, folder, images=images)
        title = str(tokenizer.training_summary.get("name") or "An image tokenizer")
        front = {
            "title": title,
            "emoji": "\U0001f9e9",
            "colorFrom": "blue",
            "colorTo": "green",
            "sdk": "gradio",
            "sdk_version": GRADIO,
            "python_version": PYTHON,
            "app_file": space_app.FILE,
            **({"license": self.license} if self.license else {}),
        }
        text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
        readme = README.format(front=text, app=space_app.FILE, folder=space_app.FOLDER)
        for name, text in {
            "README.md": readme,
            "requirements.txt": REQUIREMENTS,
            space_app.FILE: space_app.app_of(tokenizer, title),
        }.items():
            (out / name).write_text(text, encoding="utf-8")
        return agreement

    def example(self, out: Path) -> str:
        """Return lines of Python that start the app."""
        return f"import runpy\nrunpy.run_path({str(out / space_app.FILE)!r}, run_name='__main__')"
