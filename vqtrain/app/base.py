"""The contract of commands."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class Command(ABC):
    """What ``vqtrain WORD key=value ...`` does.

    ``configs/command/<word>.yaml`` holds the keys with their defaults, each with its meaning as the
    comment behind it; ``???`` is the default of a key that must be given. Its first comment line is
    the summary in ``vqtrain --help``, and the comments before and after the keys are the rest of
    ``vqtrain WORD --help``, with ``${launcher}`` for a list of the launchers. So neither a help nor
    a wrong key imports the command. Of a third party's command, ``run`` and the docstrings say all
    this.

    Attributes:
        is_composed: Whether it also takes the groups and keys of ``vqtrain train``, and the options
            that go with them.
    """

    is_composed: ClassVar[bool] = False

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - of each command its own
        """Do it.

        The keyword arguments are the keys. Their annotations are checked, as ``vqtrain.ranges``
        describes it. An argument that is a dataclass takes the keys that its fields name, and
        ``**options`` takes all other keys unchecked. Two arguments are no keys: ``words`` is the
        command line as typed, and ``command_line`` what of it is meant for ``vqtrain train``.

        Returns:
            The exit code.

        Raises:
            VqtrainError: If something is wrong; its exit code is that of the command.
        """
