"""Takes the place of jaxtyping in standalone code: annotations become the plain types in them."""


class Sized:
    """Stands for ``Float``, ``Int64`` and the others: ``Float[Tensor, "b c"]`` is ``Tensor``."""

    def __class_getitem__(cls, item: tuple[type, str]) -> type:
        return item[0]


Bool = Float = Float64 = Int = Int64 = Shaped = UInt8 = Sized
