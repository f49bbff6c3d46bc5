"""What objects show to their users: `dir`, and with it completion, lists what may be used."""

from typing import ClassVar


class Public:
    """An object whose `dir` is its public names alone, those of its bases among them.

    What is not there is for the rest of the library, whatever its name begins with.
    """

    __slots__ = ()
    PUBLIC: ClassVar[tuple[str, ...]] = ()

    def __dir__(self) -> list[str]:
        kinds = type(self).__mro__
        return sorted({name for kind in kinds for name in kind.__dict__.get("PUBLIC", ())})
