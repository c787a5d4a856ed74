"""Which words of ``vqtrain discretize`` are of which training."""

import re
from collections.abc import Sequence

from vqtrain.errors import ConfigError, require

# What the command sets, with what takes its place.
OWN = {
    "experiment": "it is experiment=latents",
    "encoder": "that of the tokenizer stays",
    "run_dir": "give out",
    "resume": "the same command continues",
    "init_from": "give tokenizer",
    "init_parts": "all parts are of tokenizer",
    "trainer.freeze": "the decoder alone is trained in the end",
    "data.channels": "they are the tokenizer's",
    "data.range": "it is that of the latents, or the tokenizer's",
}
# Groups and keys of one of the two trainings; all others are of both.
OF_CODEBOOK = ("codebook", "decoder", "optim", "trainer.max_steps")
OF_DECODER = ("loss", "discriminator", "optim.discriminator")
# Of the images, so that they are none of the training on latents.
OF_IMAGES = (
    *("data.train", "data.val", "data.image_size", "data.aspect", "data.crop", "data.flip"),
    *("data.background", "data.sampling", "data.max_bad_fraction", "metrics"),
)
# Those that may differ when the command continues.
FREE = ("data.num_workers", "logger", "trainer.log_every", "trainer.devices", "weights")


def key_of(word: str) -> str:
    """Return the key or the group of a word, with dots.

    Example:
        >>> key_of("+loss/perceptual@loss.more=lpips"), key_of("~codebook.dim")
        ('loss.perceptual', 'codebook.dim')
    """
    return re.split(r"[=@]", word.lstrip("+~"))[0].replace("/", ".")


def is_of(key: str, groups: Sequence[str]) -> bool:
    """Say whether a key is one of these, or below one of them."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def check(words: Sequence[str]) -> None:
    """Refuse keys that the command sets.

    Raises:
        ConfigError: If there is one; it says what to do.
    """
    for key, word in zip(map(key_of, words), words, strict=True):
        require(
            key != "data" or word == "data=image",
            f"{word}: latents are of images, for a tokenizer of images: leave it out",
        )
        for own, instead in OWN.items():
            if is_of(key, [own]):
                raise ConfigError(f"{key} is set by vqtrain discretize: {instead}; leave it out")


def of_codebook(words: Sequence[str]) -> list[str]:
    """Choose the words of the training on latents."""
    return [word for word in words if not is_of(key_of(word), (*OF_DECODER, *OF_IMAGES))]


def of_decoder(words: Sequence[str]) -> list[str]:
    """Choose the words of the training of the decoder."""
    return [
        word
        for word in words
        if is_of(key_of(word), OF_DECODER) or not is_of(key_of(word), OF_CODEBOOK)
    ]


def fixed(words: Sequence[str]) -> list[str]:
    """Choose the words that must be the same when the command continues, in a fixed order."""
    return sorted(word for word in words if not is_of(key_of(word), FREE))
