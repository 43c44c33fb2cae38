"""Why a request is not done."""

from skipsr.errors import SkipsrError


class RequestError(SkipsrError):
    """A request that is not done: the HTTP status, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
