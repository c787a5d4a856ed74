"""Size and kind of an image, mostly from its header alone."""

import io
import warnings

import tifffile
from PIL import Image, UnidentifiedImageError

from vqtrain.data.decoding.images import NPY, one_line, open_image, orientation_of, read_npy
from vqtrain.errors import BadSampleError


def ratio_of(head: bytes) -> float:
    """Return width / height of an image, upright, from the first bytes of its file.

    Raises:
        BadSampleError: If they do not say it.
    """
    with one_line(head):
        image = open_image(head)
        if image is None:
            raise BadSampleError("its size is in no header that Pillow reads")
        width, height = image.size
        return height / width if orientation_of(image) >= 5 else width / height


def look_at(encoded: bytes) -> tuple[tuple[int, int], str]:
    """Tell the width, the height and the mode of an image that can be decoded, upright or not.

    Raises:
        Exception: Of any kind, if it cannot be decoded.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded)) as image:
            return image.size, image.mode
    except UnidentifiedImageError:
        pass
    if encoded.startswith(NPY):
        array = read_npy(encoded)
    else:
        array = tifffile.imread(io.BytesIO(encoded), key=0)
    height, width = array.shape[:2]
    return (width, height), f"{array.dtype} {'x'.join(map(str, array.shape[2:])) or 1}"
