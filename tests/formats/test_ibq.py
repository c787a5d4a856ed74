"""SEED-Voken's IBQ: the networks of taming-transformers, and codes by inner products."""

from pathlib import Path

import torch
from torch.nn import functional as F

from vqtrain.formats.ibq import IBQ


def save(weights: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save({"state_dict": weights}, tmp_path / "ibq.ckpt")
    return tmp_path / "ibq.ckpt"


@torch.no_grad()
def test_ids_pixels_and_loss_follow_inner_products(vqgan, images, tmp_path):
    model = vqgan()
    latents, table = model.latents(images), model.quantize.embedding.weight
    ids = torch.einsum("bdhw,nd->bnhw", latents, table).argmax(dim=1)
    z_q = table[ids].movedim(-1, 1)
    tokenizer = IBQ().convert(save(model.state_dict(), tmp_path))
    assert torch.equal(tokenizer.encode(images), ids)
    nearest = torch.cdist(latents.movedim(1, -1).flatten(0, 2), table).argmin(dim=1)
    assert not torch.equal(nearest, ids.flatten())
    assert len(ids.unique()) > 3
    reconstruction = tokenizer(images)
    torch.testing.assert_close(reconstruction.samples, model.decode(z_q), atol=1e-5, rtol=1e-5)
    # The same distance three times, of weights 1, 1 and beta = 0.25.
    expected = 2.25 * F.mse_loss(z_q, latents)
    torch.testing.assert_close(reconstruction.quantized.loss, expected)


def test_the_loss_goes_on_as_published(vqgan, tmp_path):
    arguments = IBQ().convert(save(vqgan().state_dict(), tmp_path)).config["codebook"]["arguments"]
    assert arguments == {
        "size": 24,
        "dim": 8,
        "index_weight": 1.0,
        "codebook_weight": 0.25,
        "commitment_weight": 1.0,
        "entropy_weight": 0.05,
        "entropy_temperature": 0.01,
    }


def test_averages_are_used_as_in_its_evaluation(vqgan, tmp_path):
    weights, averages = vqgan().state_dict(), vqgan().state_dict()
    stored = {f"model_ema.{name.replace('.', '')}": item for name, item in averages.items()}
    file = save({**weights, **stored, "model_ema.decay": torch.tensor(0.999)}, tmp_path)
    for ema, chosen in ((True, averages), (False, weights)):
        vectors = IBQ(ema=ema).convert(file).codebook.vectors
        assert torch.equal(vectors, chosen["quantize.embedding.weight"])
