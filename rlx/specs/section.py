"""The base class of every section of a spec."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

ADDED_LATER: dict[str, Any] = {"added_later": True}
"""Schema flag of a key that older versions did not have. The run's id ignores the key while it has its default, so that
finished runs keep their id."""


class Section(BaseModel):
    """Base of every section: frozen, rejects unknown keys, takes field descriptions from docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
