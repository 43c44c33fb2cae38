"""The errors a user can cause; the command line prints them as one sentence, without a traceback.

Their messages name settings as Python does, in backticks, which are for nothing else: `max_memory`.
The command line makes flags of them."""

_LACKS_MEMORY = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")


class SkipsrError(Exception):
    """Base of every error whose message is meant for the person who runs the job."""


class MediaError(SkipsrError):
    """A video or image file cannot be read, understood or written."""


class SettingsError(SkipsrError):
    """An option has a value that cannot work, alone or with the others."""


class WeightsError(SkipsrError):
    """A weight file is missing, unknown, or does not fit the network."""


class TrainingError(SkipsrError):
    """A training run cannot go on."""


class Interrupted(KeyboardInterrupt):
    """A job was asked to stop; its message says what is kept and how to go on."""


class Cancelled(BaseException):
    """Raised by whoever watches a job, to end it: nothing of the output is kept."""


class Suspended(Cancelled):
    """Ends a job that will be started again: of a long one the finished segments are kept."""


def describe(error: BaseException) -> str | None:
    """What to tell the person who runs the job, in one sentence; None for a fault of our own."""
    match error:
        case SkipsrError():
            return with_notes(str(error), error)
        case OSError():
            place = error.filename or "file system"
            return with_notes(f"{place}: {error.strerror or error}", error)
        case _ if lacks_memory(error):
            advice = "out of memory; give a smaller `window`, or a smaller `scale` or `height`"
            return with_notes(advice, error)
        case _:
            return None


def describe_any(error: BaseException) -> str:
    """The same, also of a fault of our own, by its kind."""
    return describe(error) or with_notes(f"unexpected {type(error).__name__}: {error}", error)


def with_notes(message: str, error: BaseException) -> str:
    """One line: a message, and what is noted on the error of what is left of the job."""
    whole = "; ".join((message, *getattr(error, "__notes__", ())))
    return " ".join(whole.split())


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is one of too little memory, of the host or of a device."""
    if isinstance(error, RuntimeError):  # which torch raises
        told = str(error).lower()  # not "illegal memory access", which is a fault of the program
        return any(words in told for words in _LACKS_MEMORY)
    return isinstance(error, MemoryError)
