"""The parts of a tokenizer that a run leaves as they are."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from vqtrain import distributed
from vqtrain.errors import FailedError, require
from vqtrain.objective import Objective
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.parts import PARTS, listed, modules_of
from vqtrain.tokenizer.reconstruction import Reconstruction


@final
class FrozenParts:
    """Keeps parts of a tokenizer out of the training, and shows that they did not change.

    Their parameters need no gradient, so that no optimizer has them, no gradient of theirs is
    reduced over ranks and no graph is built where nothing before them is trained. They are in eval
    mode, also while the rest trains.

    Args:
        tokenizer: The tokenizer of the run, before its gradients are reduced over ranks.
        parts: Of ``vqtrain.tokenizer.parts.PARTS``.

    Attributes:
        parts: The same in their order.
        names: The tensors of the tokenizer's state dict that are frozen.
        digest: A hash of them at the start of the run; None before it.
    """

    def __init__(self, tokenizer: Tokenizer, parts: Sequence[str]) -> None:
        self.parts = [part for part in PARTS if part in parts]
        self.keeps_ids = {"encoder", "codebook"} <= set(parts)
        modules = modules_of(parts)
        self._modules = [tokenizer.get_submodule(name) for name in modules]
        self.names = {name for name in tokenizer.state_dict() if name.partition(".")[0] in modules}
        self.digest: str | None = None
        for module in self._modules:
            module.requires_grad_(False)
        self.eval()

    def check(
        self, tokenizer: Tokenizer, objective: Objective, layers: Mapping[str, Tensor]
    ) -> None:
        """Refuse a training that needs a gradient which a frozen part does not have or pass on.

        Args:
            tokenizer: The tokenizer of the run.
            objective: What it minimizes.
            layers: The weights at which its terms are compared.

        Raises:
            ConfigError: If a term compares gradients at a frozen weight, or the codebook passes
                none on in eval mode.
        """
        require(
            objective.alignment is None or layers["alignment"].requires_grad,
            "trainer.freeze keeps the latents, which loss.alignment trains: loss/alignment=none",
        )
        require(
            objective.discriminator is None or layers["adversarial"].requires_grad,
            "loss.adversarial.layer is frozen, so that gradients cannot be compared there: "
            "loss.adversarial.layer=project_in.weight is not",
        )
        if "codebook" in self.parts and not self.keeps_ids:
            codebook = tokenizer.codebook
            smallest = (codebook.grid_unit,) * len(tokenizer.downsampling)
            grid = codebook.token_grids[-1] if codebook.token_grids else smallest
            shape = (1, codebook.in_channels, *grid)
            latents = torch.zeros(shape, device=tokenizer.device, requires_grad=True)
            require(
                codebook(latents).z_q.requires_grad,
                "trainer.freeze: the encoder cannot train through this codebook while it is frozen"
                ", as it passes a gradient on in train mode alone: freeze both or none",
            )

    def begin(self, tokenizer: Tokenizer) -> None:
        """Note the tensors before the first step, unless a checkpoint says what they were."""
        if self.parts and self.digest is None:
            self.digest = self.digest_of(tokenizer.state_dict())

    def eval(self) -> None:
        """Put the parts into eval mode; whatever puts the tokenizer into train mode calls this."""
        for module in self._modules:
            module.eval()

    def without_codebook_loss(self, output: Reconstruction) -> Reconstruction:
        """Drop the loss of a codebook where it asks something of frozen parts alone."""
        if not self.keeps_ids:
            return output
        loss = torch.zeros_like(output.quantized.loss)
        return replace(output, quantized=replace(output.quantized, loss=loss))

    def digest_of(self, weights: Mapping[str, Tensor]) -> str:
        """Hash the values of the frozen tensors of a state dict; collective."""
        found = hashlib.sha256()
        for name in sorted(self.names):
            values = distributed.whole(weights[name].detach()).cpu().flatten().contiguous()
            found.update(values.view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def conclude(self, *weights: Mapping[str, Tensor], source: str | None) -> str | None:
        """Say what has stayed the same over the run; None if nothing is frozen.

        Args:
            weights: State dicts of the tokenizer at the end: its own, and the averaged one.
            source: The tokenizer that the run started from, or None.

        Raises:
            FailedError: If a frozen tensor has changed, by a callback or a part of the user's.
        """
        if not self.parts:
            return None
        if any(self.digest_of(each) != self.digest for each in weights):
            raise FailedError(
                f"trainer.freeze: tensors of {listed(self.parts)} are not those of the start, "
                "although no optimizer has them: a callback or a part of yours has changed them"
            )
        start = f" from {source}" if source else ""
        kept = ", so each image keeps its token ids" if self.keeps_ids else ""
        return (
            f"frozen: {listed(self.parts)}, {len(self.names)} tensors unchanged since the start"
            f"{start}{kept}"
        )
