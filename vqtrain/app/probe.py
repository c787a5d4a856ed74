"""``vqtrain probe``: how well a model can generate on tokenizers."""

from typing import final

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order, folder_of
from vqtrain.app.parts.probes.images import Sources
from vqtrain.app.parts.probes.one import open_run, probe
from vqtrain.app.parts.probes.options import ProbeOptions
from vqtrain.app.parts.probes.several import probe_all
from vqtrain.app.parts.sources import Named, SampleSources
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
        sources: SampleSources,
        val: Named,
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
        command = "vqtrain probe tokenizer=PATH images=IMAGES"
        images, media = None, None
        if sources.given or tokens is None:
            images, media = sources.named(command)
        found = Sources(images=images, media=media, val=val, tokens=tokens)
        found.check(folder, names)
        with ending_in_order():
            if len(names) == 1:
                run = open_run(names[0], words, allow, found, folder, settings, options, out=out)
                return probe(run)
            return probe_all(names, words, allow, found, folder, settings, options, out=out)
