"""The frozen text model of a CLIP, by the package transformers."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.layers.frozen import Frozen
from vqtrain.weights import one_line


@final
class PretrainedText(nn.Module):
    """Maps each text to the output of CLIP's token after its last one.

    It is in eval mode always, and in no state dict and no ``parameters()`` of what uses it.

    Args:
        model: The name of a CLIP of the Hugging Face hub, whose files are looked for in its cache,
            and else downloaded.
        given: A folder that holds them; None for the cache.

    Attributes:
        dim: Channels of the output.

    Raises:
        ConfigError: If transformers is not installed.
        WeightsError: If there are no such files, or they are damaged or of another model.
    """

    def __init__(self, *, model: str, given: str | None) -> None:
        super().__init__()
        if find_spec("transformers") is None:
            raise ConfigError('text_model needs transformers: pip install "vqtrain[text]"')
        transformers = import_module("transformers")  # it takes seconds
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        source = model if given is None else given
        try:
            with torch.random.fork_rng(devices=[]):
                network, report = transformers.CLIPTextModel.from_pretrained(
                    source, output_loading_info=True, dtype=torch.float32
                )
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        except Exception as error:  # damaged files raise errors of all kinds
            raise WeightsError(
                f"cannot load the text model {source}: {one_line(error)}; to use another copy, set "
                "weights.text=FOLDER"
            ) from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise WeightsError(
                f"{source} is no CLIP: it lacks {len(missing)} tensors of its text model, such as "
                f"{missing[0]}"
            )
        self.network = Frozen(network)
        self.dim: int = network.config.hidden_size
        self.max_tokens: int = network.config.max_position_embeddings

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "b dim"]:
        """Map texts to vectors; what is beyond the most tokens that the model takes is cut off."""
        device = next(self.network.network.parameters()).device
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(device)
        found: Tensor = self.network(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return found
