"""The one exception of media work: it ends up as a quarantine row, never as a failed task."""

from __future__ import annotations


class MediaError(Exception):
    """Something is wrong with one piece of media.

    `reason` is a short stable snake_case code that reports group by; `message` says what was found, the value and what
    is allowed; `payload` is optional JSON text with what helps to find the place (a position, a limit).
    """

    def __init__(self, reason: str, message: str, payload: str | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.payload = payload

    def as_row(self) -> dict[str, str | None]:
        """The value of an `error` column."""
        return {"reason": self.reason, "message": self.message, "payload": self.payload}


class ModelError(Exception):
    """Something is wrong with a model: its files, its card or what it gives. The message names it and what to do."""


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in one line of at most 300 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
