"""``README.md`` of graphs in ONNX: what goes in and out, and how to run them."""

from vqtrain.data.media import IMAGE, SOUND, media_of
from vqtrain.formats.parts.graphs import lacking, traced_size
from vqtrain.ops.pixels import UINT8_RANGE
from vqtrain.tokenizer.model import Tokenizer

README = """# {article} {word} tokenizer in ONNX

`encoder.onnx` turns {samples} into token ids, `decoder.onnx` turns ids into {samples}; neither
needs PyTorch. What the ids mean is in `config.json`.{preprocess}

- `{samples}`: float32 {size} in [-1, 1]
- `token_ids`: int64 {ids} in 0..{last_id}

{sizes} The networks are in {precision}.

On the CPU the graphs fail for other sides, NaN, values far beyond [-1, 1] and ids that there are
not: `Gather` names an index out of bounds, or `Reshape` a shape. A device that does not compare
indices gives results that mean nothing.{right}

```python
{imports}

encoder = onnxruntime.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])
decoder = onnxruntime.InferenceSession("decoder.onnx", providers=["CPUExecutionProvider"])

{samples} = {made}
token_ids = encoder.run(None, {{"{samples}": {samples}}})[0]

{samples} = decoder.run(None, {{"token_ids": token_ids}})[0]
{back}
```
"""
NAMES = {1: ("length",), 2: ("height", "width"), 3: ("frames", "height", "width")}
PREPROCESS = """ `preprocess.py` turns pictures into images, with
numpy and Pillow, exactly as the tokenizer itself does."""


def readme(tokenizer: Tokenizer, precision: str = "float32") -> str:
    """Say how to run the graphs, with what the tokenizer's pixels are."""
    media, last_id = media_of(len(tokenizer.unit)), tokenizer.vocab_size - 1
    is_image, is_uint8 = media is IMAGE, tokenizer.pixel_range is None
    imports = "import numpy as np\nimport onnxruntime"
    black, white = tokenizer.pixel_range or UINT8_RANGE
    half_range, rounded = (white - black) / 2, ".round().astype(np.uint8)" if is_uint8 else ""
    if is_image:
        picture = 'np.load("picture.npy")'
        if is_uint8 and tokenizer.channels in (1, 3):
            imports, picture = f"{imports}\nfrom PIL import Image", 'Image.open("picture.png")'
        imports, made = f"{imports}\n\nfrom preprocess import preprocess", f"preprocess({picture})"
        channels_last = "images[0].transpose(1, 2, 0)"
    elif media is SOUND:
        made = 'np.load("sound.npy").astype(np.float32)[None]  # [c, t], floats in [-1, 1]'
        channels_last = ""
    else:
        frames = 'np.load("frames.npy").transpose(3, 0, 1, 2)[None]'
        made = f"({frames} - np.float32({black})) / np.float32({half_range}) - 1  # of [t, h, w, c]"
        channels_last = "clips[0].transpose(1, 2, 3, 0)"
    back = f"pixels = (({channels_last} + 1) * {half_range} + {black}){rounded}"
    return README.format(
        **_shapes(tokenizer),
        article="An" if is_image else "A",
        word=media.word,
        samples=f"{media.noun}s",
        preprocess=PREPROCESS if is_image else "",
        right=" `preprocess.py` gives sides and values that are right." if is_image else "",
        imports=imports,
        made=made,
        back=back if channels_last else "values = sounds[0]  # [c, t]",
        last_id=last_id,
        precision=precision,
    )


def _shapes(tokenizer: Tokenizer) -> dict[str, str]:
    """Write the shapes of what goes in and out, and which sizes may be."""
    channels, codebook, unit = tokenizer.channels, tokenizer.codebook, tokenizer.unit
    k, size, noun = codebook.num_codebooks, traced_size(tokenizer), media_of(len(unit)).noun
    if size:
        resize = ": resize them first" if len(size) == IMAGE.axes else ""
        return {
            "size": shaped("batch", channels, *size),
            "ids": shaped("batch", *tokenizer.token_shape(*size)),
            "sizes": f"Any batch; {noun}s have this size{resize}.",
        }
    names, least = NAMES[len(unit)], (codebook.grid_unit,) * len(unit)
    axes: list[str] = []
    rules: list[str] = []
    # Of causal networks a part of the first token is missing.
    for name, side, count, lack in zip(
        names, unit, codebook.tokens(least), lacking(tokenizer), strict=True
    ):
        more = f"{count}*" if count > 1 else ""
        axes.append(f"{more}{f'({name}+{lack})' if lack else name}/{side}")
        rule = f"is {side - lack} more than a multiple of" if lack else "is a multiple of"
        rules.append(f"{name} {rule if lack or not rules else 'of'} {side}")
    return {
        "size": shaped("batch", channels, *names),
        "ids": shaped("batch", *([k] if k > 1 else []), *axes),
        "sizes": f"Any batch; {', '.join(rules)}.",
    }


def shaped(*axes: object) -> str:
    """Write a shape, such as [batch, 3, 64, 64]."""
    return f"[{', '.join(map(str, axes))}]"
