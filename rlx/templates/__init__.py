"""The HTML pages: jinja2 templates and one style sheet, which a designer can change without reading Python."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ENVIRONMENT = Environment(
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
