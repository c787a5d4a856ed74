"""Which tokenizers an app or a page in a browser can show."""

from vqtrain.data.media import IMAGE, media_of
from vqtrain.errors import require
from vqtrain.tokenizer.model import Tokenizer


def check_pictures(tokenizer: Tokenizer, what: str) -> None:
    """Refuse a tokenizer whose samples are no pictures, or that has no ids.

    Args:
        tokenizer: The tokenizer.
        what: What is to show it, for people.

    Raises:
        ConfigError: If it cannot be shown.
    """
    media, kind = media_of(len(tokenizer.downsampling)), tokenizer.specification["codebook"]["kind"]
    for is_wrong, reason in (
        (media is not IMAGE, f"takes {media.noun}s"),
        (tokenizer.channels not in (1, 3), f"has {tokenizer.channels} channels"),
        (tokenizer.pixel_range is not None, f"has pixels in {tokenizer.pixel_range}"),
        (
            tokenizer.codebook.num_codebooks == 0,
            (
                f"has none, as codebook={kind} is continuous: format=safetensors takes it, and "
                "vqtrain discretize adds ids"
            ),
        ),
    ):
        require(
            not is_wrong,
            f"{what} shows token ids of pictures of 1 or 3 channels in uint8, and this tokenizer "
            f"{reason}",
        )
