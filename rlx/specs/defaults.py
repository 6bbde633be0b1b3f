"""Defaults that depend on the method and the model: recipes, and the parameters of a method's preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlx.errors import UserError
from rlx.registry import Component, declared
from rlx.specs.reading import assign, merge, validate
from rlx.specs.train import Section


def merge_recipes(recipes: Sequence[Mapping[str, Any]], user_spec: Section) -> dict[str, Any]:
    """Return a spec's content: the recipes, a later one over an earlier one, and the user's keys over all of them.

    Args:
        recipes: dotted keys of the spec to their values.
        user_spec: the validated spec; only keys that the user set are taken from it.
    """
    content: dict[str, Any] = {}
    for recipe in recipes:
        for key, value in recipe.items():
            assign(content, key, value)
    merge(content, user_spec.model_dump(mode="json", exclude_unset=True))
    return content


def method_component(kind: str, reference: str, key: str) -> Component:
    """Return the registered component of a method; its functions can be called if torch was imported before.

    Args:
        kind: ``policy`` or ``unlearn``.
        reference: the method as the user wrote it; a preset after ``@`` is ignored.
        key: the spec key of the reference, for the error message.
    """
    return declared(kind, reference.partition("@")[0], key=key)


def method_params(reference: str, params: Mapping[str, Any], method: Component, section: str) -> dict[str, Any]:
    """Return all parameters of a method: its defaults, the preset's values over them, the user's over both.

    Args:
        reference: ``name`` or ``name@preset``.
        params: the parameters that the user set.
        method: the component of that name.
        section: section of the spec, for the error message.

    Raises:
        UserError: for an unknown preset or parameter.
    """
    name, _, preset = reference.partition("@")
    if preset and preset not in method.presets:
        choices = ", ".join(f"{name}@{choice}" for choice in method.presets) or f"{name} (it has no presets)"
        raise UserError(f"{section}.name '{reference}' is not a known preset", fix=f"choices: {choices}")
    preset_params = method.presets[preset] if preset else {}
    hyper = validate({**preset_params, **params}, method.hyper, prefix=f"{section}.params")
    return hyper.model_dump(mode="json")
