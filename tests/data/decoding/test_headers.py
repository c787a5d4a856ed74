"""Size and kind of images that Pillow reads, and of those that it does not."""

import io

import numpy as np
import tifffile

from vqtrain.data.decoding.headers import look_at


def test_images_and_arrays_are_measured(encode):
    assert look_at(encode(np.zeros((4, 3), np.uint16))) == ((3, 4), "I;16")
    file = io.BytesIO()
    np.save(file, np.zeros((40, 30, 5), np.uint16))
    assert look_at(file.getvalue()) == ((30, 40), "uint16 5")
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((40, 30, 3), np.float32), photometric="rgb")
    assert look_at(file.getvalue()) == ((30, 40), "float32 3")
