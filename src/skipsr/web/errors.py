"""Why a request is not done."""

from skipsr.errors import SkipsrError

UNFORESEEN = "this went wrong in a way that was not foreseen: see the server's log"


class RequestError(SkipsrError):
    """A request that is not done: the HTTP status, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
