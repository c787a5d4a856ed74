"""``app.py`` of a Space: a page on which people try a tokenizer of images."""

from vqtrain.formats.parts.graphs import traced_size
from vqtrain.tokenizer.model import Tokenizer

FILE = "app.py"
# Where the tokenizer is, beside the app.
FOLDER = "tokenizer"
# A picture is made smaller than this, in px, since a Space without a GPU has two cores.
LONGEST = 512

SOURCE = '''"""Try a tokenizer: see tokens and reconstruction of a picture, and change tokens."""

from pathlib import Path

import gradio as gr
import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModel

FOLDER = Path(__file__).with_name("@FOLDER@")
SIZE = @SIZE@  # height and width in px that the tokenizer takes; None for all
LONGEST = @LONGEST@  # side of a picture in px; larger ones are made smaller
AXES = @AXES@  # of the tokens of one codebook
CELL = 8  # px of a token in the map, at least

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True).to(DEVICE).eval()
processor = AutoImageProcessor.from_pretrained(FOLDER, trust_remote_code=True)


def refused(reason):
    """Return what tells a person why something cannot be done."""
    return gr.Error(reason, print_exception=False)


def prepare(picture):
    """Bring a picture to a size that the tokenizer takes."""
    if picture is None:
        raise refused("choose a picture first")
    picture = ImageOps.exif_transpose(picture).convert("@MODE@")
    if SIZE is not None:
        return ImageOps.fit(picture, SIZE[::-1])
    picture.thumbnail((LONGEST, LONGEST))
    if picture.width < @WIDTH@ or picture.height < @HEIGHT@:
        raise refused("the picture must have @WIDTH@ x @HEIGHT@ px at least")
    return picture


def shown(images):
    """Return the pixels of the first image, [h, w] or [h, w, 3]."""
    pixels = processor.post_process(images)[0]
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def places(shape):
    """Lay tokens out in rows and columns: each place holds the number of its token, or -1."""
    numbers = np.arange(np.prod(shape))
    if AXES == 2:  # codebooks are below each other
        return numbers.reshape(-1, shape[-1])
    columns = int(np.ceil(len(numbers) ** 0.5))
    return np.pad(numbers, (0, -len(numbers) % columns), constant_values=-1).reshape(-1, columns)


def cell(laid):
    """Return the side of a token in the map, in px."""
    return max(CELL, LONGEST // max(laid.shape))


def token_map(ids, chosen=None):
    """Draw tokens, each id in a color of its own, and the chosen one in white."""
    laid = places(ids.shape)
    # Multiples of an odd number far apart, whose upper bytes look random.
    mixed = ids.reshape(-1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    colors = np.stack([(mixed >> np.uint64(8 * n)) & np.uint64(255) for n in (5, 6, 7)], axis=-1)
    colors = (colors * np.uint64(3) // np.uint64(4)).astype(np.uint8)
    if chosen is not None:
        colors[chosen] = 255
    drawn = np.where((laid >= 0)[..., None], colors[laid], np.uint8(255))
    return drawn.repeat(cell(laid), axis=0).repeat(cell(laid), axis=1)


@torch.inference_mode()
def decode(ids):
    """Turn ids of one image into its pixels."""
    return shown(model.decode(torch.from_numpy(ids)[None].to(DEVICE)))


@torch.inference_mode()
def tokenize(picture):
    """Return original and reconstruction, the map of tokens, their ids and a sentence."""
    images = processor(prepare(picture))["pixel_values"].to(DEVICE)
    ids = model.encode(images)[0].cpu().numpy()
    original, reconstruction = shown(images), decode(ids)
    error = np.square(original.astype(float) - reconstruction.astype(float)).mean()
    psnr = min(100.0, 10 * np.log10(255**2 / error)) if error else 100.0
    bits = ids.size * np.log2(model.vocab_size)
    height, width = original.shape[:2]
    said = (
        f"{width} x {height} px, {ids.size:,} tokens of {model.vocab_size:,} ids, "
        f"{bits / (height * width):.3f} bits per pixel, PSNR {psnr:.2f} dB"
    )
    return (original, reconstruction), token_map(ids), ids.tolist(), said


def choose(ids, event: gr.SelectData):
    """Return the number and the id of the token at a point of the map."""
    if not ids:
        raise refused("choose a picture first")
    ids = np.asarray(ids)
    laid = places(ids.shape)
    column, row = (int(pixel) // cell(laid) for pixel in event.index)
    number = int(laid[min(row, len(laid) - 1), min(column, laid.shape[1] - 1)])
    if number < 0:
        raise refused("there is no token")
    return number, int(ids.reshape(-1)[number]), token_map(ids, number)


def change(ids, number, token_id):
    """Give a token another id: return the image, the map and all ids."""
    if not ids:
        raise refused("choose a picture first")
    ids = np.asarray(ids, dtype=np.int64)
    if not 0 <= number < ids.size:
        raise refused(f"token must be in 0..{ids.size - 1}, got {number:g}")
    if not 0 <= token_id < model.vocab_size:
        raise refused(f"id must be in 0..{model.vocab_size - 1}, got {token_id:g}")
    ids.reshape(-1)[int(number)] = int(token_id)
    return decode(ids), token_map(ids, int(number)), ids.tolist()


with gr.Blocks(title=@TITLE@, analytics_enabled=False) as demo:
    gr.Markdown("# " + @TITLE@)
    with gr.Row():
        picture = gr.Image(type="pil", image_mode=None, label="picture")
        compared = gr.ImageSlider(label="original and reconstruction", format="png")
    said = gr.Textbox(label="result", interactive=False)
    with gr.Row():
        tokens = gr.Image(label="tokens: click one to change it", format="png", interactive=False)
        changed = gr.Image(label="decoded after the change", format="png", interactive=False)
    with gr.Row():
        number = gr.Number(0, label="token", precision=0)
        token_id = gr.Number(0, label=f"id, 0 to {model.vocab_size - 1}", precision=0)
        button = gr.Button("change the token")
    with gr.Accordion("ids", open=False):
        ids = gr.JSON(label="ids")
    outputs = [compared, tokens, ids, said]
    picture.input(tokenize, picture, outputs, api_name="tokenize")
    tokens.select(choose, ids, [number, token_id, tokens], api_name=False)
    button.click(change, [ids, number, token_id], [changed, tokens, ids], api_name="change")

if __name__ == "__main__":
    demo.launch()
'''


def app_of(tokenizer: Tokenizer, title: str) -> str:
    """Return the app for a tokenizer of images with ids."""
    text, size, unit = SOURCE, traced_size(tokenizer), tokenizer.unit
    grid = tokenizer.encoder.grid(size or unit)
    for name, value in {
        "FOLDER": FOLDER,
        "SIZE": size,
        "LONGEST": max(LONGEST, *unit),
        "AXES": len(tokenizer.codebook.tokens(grid)),
        "MODE": "RGB" if tokenizer.channels == 3 else "L",
        "HEIGHT": unit[0],
        "WIDTH": unit[1],
        "TITLE": repr(title),
    }.items():
        text = text.replace(f"@{name}@", str(value))
    return text
