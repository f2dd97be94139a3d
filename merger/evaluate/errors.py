"""What can be wrong with a suite or with the model that is evaluated. Knows no worker, no event."""

from __future__ import annotations

from merger.errors import InputError


class EvaluationError(InputError, ValueError):
    """Something that a person can fix; `message` names suite, task, file and line by itself."""

    def __init__(self, message: str, *, task: str = "", prompt: str = "") -> None:
        """Take the whole message, and the names of task and prompt where there is one."""
        super().__init__(message)
        self.message = message
        self.task = task
        self.prompt = prompt
