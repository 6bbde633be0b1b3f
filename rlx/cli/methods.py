"""What the registry knows, for people: the list of methods, one method in full, the README's table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rlx.console import table
from rlx.errors import UserError, did_you_mean
from rlx.registry import PACKAGES, Component, get, names

KINDS = {"policy": "policy losses (rlx train --algo NAME)", "unlearn": "unlearning methods (rlx unlearn --method NAME)"}
PARAMS = {"policy": "algorithm.params", "unlearn": "method.params"}
"""Where in a spec a method's parameters stand."""
ARXIV = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")


def components(kind: str) -> list[Component]:
    """Every component of a kind, by name."""
    return [get(kind, name) for name in names(kind)]


def list_methods() -> RenderableType:
    """Every method with its paper and what it computes."""
    tables: list[RenderableType] = []
    for kind, title in KINDS.items():
        rows = [[c.name, _number(c.paper), _plain(first_line(c))] for c in components(kind)]
        tables += [table(title, ["name", "paper", "computes"], rows, words=True), Text()]
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
    title = f"parameters (--set {PARAMS[kind]}.NAME=VALUE)"
    made = table(title, ["name", "type", "default", "meaning"], _rows(component), words=True)
    doc = _plain(inspect.getdoc(component.fn) or "")
    head = [Text(component.name, style="bold"), Text(), Text(doc), Text(), Text("\n".join(_facts(component))), Text()]
    return Group(*head, made if made.rows else Text("no parameters"))


def markdown_table(kind: str) -> str:
    """The README's table of one kind: name with its file, what it computes, paper, parameters with defaults."""
    lines = ["| method | computes | paper | parameters |", "|---|---|---|---|"]
    folder = PACKAGES[kind].replace(".", "/")
    for c in components(kind):
        paper = ARXIV.sub(r"[\1](https://arxiv.org/abs/\1)", c.paper)
        params = ", ".join(f"{name} {_shown(field.default)}" for name, field in c.hyper.model_fields.items())
        computes = first_line(c).replace("|", "\\|")
        lines.append(f"| [{c.name}]({folder}/{c.name}.py) | {computes} | {paper} | {params or 'none'} |")
    return "\n".join(lines)


def first_line(component: Component) -> str:
    """The first paragraph of a method's docstring, joined to one line, without the paper that stands beside it."""
    paragraph = (inspect.getdoc(component.fn) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace(f" ({_number(component.paper)})", "")


def _plain(text: str) -> str:
    """Without the marks that set code off."""
    return text.replace("``", "")


def _rows(component: Component) -> list[list[str]]:
    properties = component.hyper.model_json_schema().get("properties", {})
    return [
        [name, _type(schema), _shown(component.hyper.model_fields[name].default), _plain(schema.get("description", ""))]
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


def _facts(component: Component) -> list[str]:
    """What a component says of itself beside its docstring, a line each."""
    links = [f"https://arxiv.org/abs/{number}" for number in ARXIV.findall(component.paper)]
    words = "" if ARXIV.fullmatch(component.paper) else component.paper
    needs = sorted(component.needs | ({"whole batch"} if component.whole_batch else set()))
    recipe = {key: value for key, value in component.recipe.items() if key not in component.requires}
    lines = [
        ("paper", "  ".join(filter(None, [words, *links])) or "none"),
        ("official", component.official or "none"),
        ("needs", ", ".join(needs)),
        ("requires", _pairs(component.requires)),
        ("recipe", _pairs(recipe)),
        *(
            ("preset", f"{component.name}@{name}: {_pairs(values) or 'the defaults'}")
            for name, values in component.presets.items()
        ),
    ]
    return [f"{name:10} {text}" for name, text in lines if text]


def _number(paper: str) -> str:
    """The first arXiv number of a source, else its first words."""
    found = ARXIV.search(paper)
    return f"arXiv {found[1]}" if found else paper.partition(";")[0] or "none"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in values.items())


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
