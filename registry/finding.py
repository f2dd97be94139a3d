"""Something wrong with weights, before it is known which YAML file declares them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something wrong with weights: file in their folder, field or tensor, message, cure."""

    file: str
    field: str
    message: str
    hint: str = ""

    @property
    def subject(self) -> str:
        """File and field as one text."""
        return ": ".join(part for part in (self.file, self.field) if part)
