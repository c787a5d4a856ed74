"""``vqtrain probe``: how well a model can generate on tokenizers."""

from typing import final

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order, folder_of
from vqtrain.app.parts.probes.images import Images, Sources
from vqtrain.app.parts.probes.one import open_run, probe
from vqtrain.app.parts.probes.options import ProbeOptions
from vqtrain.app.parts.probes.several import probe_all
from vqtrain.errors import require
from vqtrain.evaluation.models import names_of
from vqtrain.evaluation.settings import SampleSettings


@final
class Probe(Command):
    """Probes tokenizers."""

    def run(
        self,
        *,
        words: list[str],
        settings: SampleSettings,
        options: ProbeOptions,
        tokenizer: str | list[str],
        allow: list[str],
        images: Images | None,
        val: Images,
        tokens: str | None,
        out: str,
    ) -> int:
        """Probe, and say what came of it."""
        require(
            ":" not in settings.device,
            f"device={settings.device}: the training takes the first GPU that it sees; choose it "
            "by CUDA_VISIBLE_DEVICES, and give device=cuda",
        )
        names = names_of(tokenizer)
        folder = folder_of(out)
        sources = Sources(images=images, val=val, tokens=tokens)
        sources.check(folder, names)
        with ending_in_order():
            if len(names) == 1:
                run = open_run(names[0], words, allow, sources, folder, settings, options, out=out)
                return probe(run)
            return probe_all(names, words, allow, sources, folder, settings, options, out=out)
