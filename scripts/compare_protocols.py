"""Prints by how much the same reconstructions differ under the four FID protocols.

One table has the protocols, one the rounding alone, one the crop alone. With --random-weights the
networks have random weights in the published form, for a machine without the published ones: then
only the differences that the pipelines make mean something, not the values.
Run: python scripts/compare_protocols.py runs/demo/latest photographs --images 256
"""

import argparse
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vqtrain.data.loading.batches import ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.find import open_samples
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.build import load_weights
from vqtrain.metrics.parts.fid_protocols import PROTOCOLS, adm_pixels
from vqtrain.metrics.parts.moments import Moments, frechet_distance
from vqtrain.metrics.psnr import PSNR
from vqtrain.ops.pixels import to_images, to_pixels
from vqtrain.shapes import Images, Pixels
from vqtrain.tokenizer.model import Tokenizer

BATCH_SIZE = 16
Pair = tuple[Images, Pixels]  # reconstructions, originals


class Published(nn.Module):
    """The parts of clean-fid's network that are called from outside.

    Args:
        layers: Turn resized and scaled pixels into features.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        """Return features."""
        return self.layers(images)


def random_files(folder: Path) -> dict[str, str]:
    """Write one set of random weights in the forms of all libraries.

    They keep the size of what goes through, so that no image loses itself in the network.
    """
    from pytorch_fid import inception

    # It begins with the weights that it has without a file.
    with (
        patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(nn.Module, "load_state_dict", lambda *_, **__: None),
    ):
        network = inception.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    weights = network.state_dict()
    for tensor in weights.values():
        if tensor.ndim == 4:
            scale = (2 / tensor[0].numel()) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    torch.save(weights, folder / "random.pth")
    with patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        blocks = inception.InceptionV3().eval().blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch advises against TorchScript
        script = torch.jit.script(Published(nn.Sequential(*blocks, nn.Flatten())).eval())
    script.save(str(folder / "random.pt"))
    tensors, program = str(folder / "random.pth"), str(folder / "random.pt")
    return {"inception": tensors, "pytorch_fid": tensors, "clean_fid": program}


@torch.inference_mode()
def reconstruct(
    tokenizer: Tokenizer, images: str, crop: str, limit: int, size: int | None, device: str
) -> Pair:
    """Return the reconstructions of pictures, and the pictures, on the CPU."""
    settings = SampleSettings(
        image_size=size,
        crop=crop,
        batch_size=BATCH_SIZE,
        num_workers=0,
        device=device,
        precision="32-true",
    )
    index = open_samples(images, role="validation")
    index = index.select(np.linspace(0, len(index) - 1, min(limit, len(index))).astype(np.int64))
    batches = ValidationBatches(
        index,
        transform=settings.transform(tokenizer),
        batch_size=BATCH_SIZE,
        rank=0,
        world_size=1,
    )
    placed = settings.placed(tokenizer).eval()
    made, originals = [], []
    for batch in Loader(batches, numbers=range(len(batches)), num_workers=0):
        pictures = placed.to_images(batch.samples.to(placed.project_in.weight.device))
        made.append(placed(pictures).images[batch.mask].cpu())
        originals.append(to_pixels(pictures)[batch.mask].cpu())
    return torch.cat(made), torch.cat(originals)


def truncated(images: Images) -> Pixels:
    """Map images to pixels as evaluators do that do not round."""
    return ((images.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)


def moments(fid: FID, pictures: Shaped[Tensor, "b c h w"], device: torch.device) -> Moments:
    """Return the statistics of pixels, or of images under the protocol's own rounding."""
    is_pixels = pictures.dtype == torch.uint8
    features = fid.features_of_pixels if is_pixels else fid.features
    total = Moments(dim=fid.dim, device=device)
    for batch in pictures.split(BATCH_SIZE):
        found = features(batch.to(device))
        total.add(found, torch.ones(len(found), dtype=torch.bool, device=device))
    return total


def mean_psnr(made: Shaped[Tensor, "b c h w"], original: Pixels) -> float:
    """Return the mean PSNR of pixels, or of floats in [-1, 1] that are not rounded, in dB."""
    if made.dtype == torch.uint8:
        return PSNR()(made, original).mean().item()
    difference: Float[Tensor, "b c h w"] = (made.clamp(-1, 1).double() - to_images(original)) / 2
    return (-10 * difference.square().mean(dim=(1, 2, 3)).log10()).mean().item()


def rows(
    protocols: Mapping[str, FID], pairs: Mapping[str, Pair], device: torch.device
) -> Iterator[str]:
    """Measure, and bring the lines of the tables as they come."""
    made, original = pairs["resize"]
    means = to_images(original).mean((2, 3))
    yield f"{len(original)} photographs of {original.shape[2]} px, mean {means.mean():.2f}\n"
    references = {word: moments(protocol, original, device) for word, protocol in protocols.items()}
    yield "| protocol | FID | against torch_fidelity |\n|---|---|---|"
    first = math.nan
    for word, protocol in protocols.items():
        distance = frechet_distance(moments(protocol, made, device), references[word])
        first = distance if word == "torch_fidelity" else first
        yield f"| {word} | {distance:.4f} | {100 * (distance / first - 1):+.2f} % |"
    yield "\n| rounding alone | PSNR | FID, torch_fidelity | FID, pytorch_fid |\n|---|---|---|---|"
    forms = {
        "none": made,
        "to the nearest": to_pixels(made),
        "127.5 x + 128, truncated": adm_pixels(made),
        "255 (x + 1) / 2, truncated": truncated(made),
        "the originals, truncated": truncated(to_images(original)),
    }
    for name, form in forms.items():
        cells = [f"{mean_psnr(form, original):.4f}"]
        for word in ("torch_fidelity", "pytorch_fid"):
            if form.dtype == torch.uint8 or word == "pytorch_fid":
                distance = frechet_distance(
                    moments(protocols[word], form, device), references[word]
                )
                cells.append(f"{distance:.4f}")
            else:
                cells.append("rounds itself")
        yield f"| {name} | {' | '.join(cells)} |"
    yield "\n| crop alone | PSNR | FID, torch_fidelity |\n|---|---|---|"
    protocol = protocols["torch_fidelity"]
    for crop, (made, original) in pairs.items():
        distance = frechet_distance(
            moments(protocol, made, device), moments(protocol, original, device)
        )
        yield f"| {crop} | {mean_psnr(to_pixels(made), original):.4f} | {distance:.4f} |"
    across = frechet_distance(
        moments(protocol, pairs["adm"][1], device), references["torch_fidelity"]
    )
    yield f"| originals of one against those of the other | | {across:.4f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer")
    parser.add_argument("pictures", help="IMAGES")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=None, help="px; that of the training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--random-weights", action="store_true")
    for name in sorted({protocol.weights for protocol in PROTOCOLS.values()}):
        parser.add_argument(f"--{name}", help="file of weights; default: torch's cache")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_pretrained(options.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        files = random_files(Path(folder)) if options.random_weights else vars(options)
        protocols = {word: FID(protocol=word) for word in PROTOCOLS}
        device = torch.device(options.device)
        load_weights(list(protocols.values()), files, device)
    pairs = {
        crop: reconstruct(
            tokenizer, options.pictures, crop, options.images, options.size, options.device
        )
        for crop in ("resize", "adm")
    }
    for line in rows(protocols, pairs, device):
        print(line, flush=True)


if __name__ == "__main__":
    main()
