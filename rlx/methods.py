"""What the registry knows, for people: the list of methods, one method in full, the README's table."""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rlx.console import table
from rlx.errors import UserError, did_you_mean
from rlx.registry import Component, get, names

KINDS = {"policy": "policy losses (rlx train --algo NAME)", "unlearn": "unlearning methods (rlx unlearn --method NAME)"}


def components(kind: str) -> list[Component]:
    """Every component of a kind, by name."""
    return [get(kind, name) for name in names(kind)]


def list_methods() -> RenderableType:
    """Every method with its paper and what it computes."""
    tables: list[RenderableType] = []
    for kind, title in KINDS.items():
        rows = [[c.name, _paper(c), first_line(c)] for c in components(kind)]
        made = table(title, ["name", "paper", "computes"], rows)
        for column in made.columns[1:]:
            column.justify = "left"
        tables += [made, Text()]
    return Group(*tables, Text("rlx methods NAME shows one in full."))


def show_method(name: str) -> RenderableType:
    """One method: equation, sources, parameters with type, bounds, default and meaning.

    Raises:
        UserError: for a name that is no method.
    """
    every = {known: kind for kind in reversed(KINDS) for known in names(kind)}
    is_file = ".py" in name
    if name.partition("@")[0] not in every and not is_file:
        raise UserError(f"'{name}' is not a known method", fix=did_you_mean(name, sorted(every)))
    kind = "policy" if is_file else every[name.partition("@")[0]]
    component = get(kind, name if is_file else name.partition("@")[0])
    facts = [f"paper      {_paper(component)}", f"official   {component.official or 'none'}"]
    if component.needs:
        facts.append(f"needs      {', '.join(sorted(component.needs))}")
    facts += [f"preset     {component.name}@{preset}: {_pairs(values)}" for preset, values in component.presets.items()]
    if component.recipe:
        facts.append(f"recipe     {_pairs(component.recipe)}")
    made = table(
        "parameters (--set algorithm.params.NAME=VALUE)", ["name", "type", "default", "meaning"], _rows(component)
    )
    for column in made.columns[1:]:
        column.justify = "left"
    doc = inspect.getdoc(component.fn) or ""
    return Group(Text(component.name, style="bold"), Text(), Text(doc), Text(), Text("\n".join(facts)), Text(), made)


def markdown_table(kind: str) -> str:
    """The README's table of one kind: name with its file, what it computes, paper, parameters with defaults."""
    lines = ["| method | computes | paper | parameters |", "|---|---|---|---|"]
    for c in components(kind):
        paper = f"[{c.paper}](https://arxiv.org/abs/{c.paper})" if _is_arxiv(c.paper) else c.paper
        params = ", ".join(f"{name} {_shown(field.default)}" for name, field in c.hyper.model_fields.items())
        folder = "policy" if kind == "policy" else "unlearn"
        computes = first_line(c).replace("|", "\\|")
        lines.append(f"| [{c.name}](rlx/{folder}/{c.name}.py) | {computes} | {paper} | {params or 'none'} |")
    return "\n".join(lines)


def first_line(component: Component) -> str:
    """The first sentence of a method's docstring, joined to one line."""
    paragraph = (inspect.getdoc(component.fn) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


def _rows(component: Component) -> list[list[str]]:
    properties = component.hyper.model_json_schema().get("properties", {})
    return [
        [name, _type(schema), _shown(component.hyper.model_fields[name].default), schema.get("description", "")]
        for name, schema in properties.items()
    ]


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema's type with its bounds: ``number > 0``, ``one of a, b``, ``number > 1 or null``."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([str(schema.get("type", "any")), " and ".join(bounds)]).strip()


def _paper(component: Component) -> str:
    return f"arXiv {component.paper}" if _is_arxiv(component.paper) else component.paper or "none"


def _is_arxiv(paper: str) -> bool:
    return len(paper) == 10 and paper.replace(".", "").isdigit()


def _pairs(values: Any) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in values.items())


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
