"""The errors that Pagemill raises on purpose, each with what the user can do about it.

Every class names the exit code that the command line ends with when the error reaches it (the table is in README.md).
A bad page is not an error of the run: the pipelines turn `UnreadablePage` into a dead letter and go on.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PagemillError(Exception):
    """Base of all errors with a remedy.

    >>> print(PagemillError("no such folder: scans", remedy="check the path"))
    no such folder: scans (check the path)
    """

    exit_code: ClassVar[int] = 15

    def __init__(self, message: str, remedy: str = "") -> None:
        # All of it is in `args`: an error that crosses processes is made anew from these.
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes with all that they hold."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[PagemillError], arguments: tuple[Any, ...], state: dict[str, Any]) -> PagemillError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class BadArgument(PagemillError):
    """The command or a call was given values that do not go together."""

    exit_code = 1


class BadInput(PagemillError):
    """An input path, a configuration or an output folder cannot be used at all."""

    exit_code = 2


class TooManyFailures(PagemillError):
    """More pages failed than the user allowed; what is done stays done."""

    exit_code = 4


class NothingToDo(PagemillError):
    """The inputs hold no page."""

    exit_code = 6


class BadModel(PagemillError):
    """The bundle is missing, incomplete or of a version that this code does not know."""

    exit_code = 7


class MissingDependency(PagemillError):
    """An optional package is needed and not installed."""

    exit_code = 7


class UnreadablePage(PagemillError):
    """One file or page cannot be decoded, or is over a limit; the other pages are not affected.

    Attributes:
        reason: a short stable class of the failure, for counting: `empty-file`, `not-an-image`, `truncated`,
            `too-many-pixels`, `too-many-bytes`, `too-many-pages`, `encrypted`, `zero-size`, `damaged`, `unsupported`,
            `out-of-memory`; and of a decoder in a process of its own `timeout` and `decoder-died`.
            Of ground truth `bad-xml`, `bad-json`, `bad-encoding`, `foreign-schema` (another format), `no-resolution`
            (it measures in millimetres or inches), `entity-declaration`.
    """

    exit_code = 3

    def __init__(self, message: str, reason: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.reason = reason
