"""The HTML pages: jinja2 templates and one style sheet, which a designer can change without reading Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


class _KeysFirst(Environment):
    """In a template, ``a.update`` is the key "update" of the mapping ``a``; without such a key it is its attribute."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """The value of ``obj.attribute`` in a template."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


_ENVIRONMENT = _KeysFirst(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: object) -> str:
    """One self-contained page: nothing is fetched, and every value is escaped unless it is ``markupsafe.Markup``.

    Args:
        template: name of a template in this folder, such as ``report.html``.
        values: what the template shows.

    Raises:
        jinja2.UndefinedError: when the template uses a value that is not given.
    """
    return _ENVIRONMENT.get_template(template).render(values)
