"""Networks beyond one device: the encoder and the decoder, split over the processes of a run."""

from torch import nn

from vqtrain import distributed
from vqtrain.errors import require
from vqtrain.layers.block import blocks_of
from vqtrain.objective import Objective
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.settings import TrainerSettings


def shard(tokenizer: Tokenizer) -> None:
    """Split the encoder and the decoder of a tokenizer over all ranks, block by block.

    All else is small, and stays whole on each rank.
    """
    for network in (tokenizer.encoder, tokenizer.decoder):
        distributed.shard(network, blocks_of(network), whole=kept_whole(tokenizer))


def kept_whole(tokenizer: Tokenizer) -> list[nn.Parameter]:
    """List the parameters that each rank keeps whole."""
    last = set(tokenizer.decoder.last_layer.parameters())  # where gradients are compared
    networks = ("encoder.", "decoder.")
    return [
        parameter
        for name, parameter in tokenizer.named_parameters()
        if not name.startswith(networks) or parameter in last or parameter.ndim == 0
    ]


def check_sharding(settings: TrainerSettings, tokenizer: Tokenizer, objective: Objective) -> None:
    """Refuse what needs a gradient at a weight that is split, or a part of a backward pass.

    Raises:
        ConfigError: If there is any.
    """
    require(
        settings.precision != "16-mixed",
        "trainer.strategy=fsdp has no loss scaling, which trainer.precision=16-mixed needs: set "
        "bf16-mixed or 32-true",
    )
    require(
        not settings.compile,
        "trainer.strategy=fsdp gathers weights between the blocks, which trainer.compile=true "
        "would make one graph: set trainer.compile=false, got True",
    )
    require(
        settings.ema_device is None,
        "trainer.strategy=fsdp splits the average of the weights over the processes where they "
        f"are: set trainer.ema_device=null, got {settings.ema_device}",
    )
    layer, alignment = objective.adversarial.layer, objective.alignment
    if objective.discriminator is not None and layer is not None:
        require(
            any(tokenizer.get_parameter(layer) is each for each in kept_whole(tokenizer)),
            "trainer.strategy=fsdp splits the weight of loss.adversarial.layer, so that gradients "
            "cannot be compared there: null, the decoder's last layer, and project_in.weight are "
            "whole",
        )
    for name in objective.adaptive_terms:
        require(
            settings.accumulate == 1,
            "trainer.strategy=fsdp cannot keep the gradients of several batches apart, as "
            f"loss.{name}.adaptive=true does with trainer.accumulate={settings.accumulate}: set "
            "trainer.accumulate=1, or a fixed weight",
        )
        require(
            name != "alignment" or alignment is None or alignment.layer is None,
            "trainer.strategy=fsdp cannot differentiate the alignment of an inner layer alone, as "
            "loss.alignment.adaptive=true does: set a fixed weight, or loss.alignment.layer=null",
        )
