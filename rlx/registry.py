"""Components by name. A component's name is its file's stem, so listing names imports nothing.

``rlx/methods/policy/dgpo.py`` holds ``@register("policy", ...) def dgpo(...)``; ``get("policy", "dgpo")`` imports
that file and no other. A file of the user's own is named by path: ``get("policy", "./my_loss.py:my_loss")``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from rlx.errors import UserError, did_you_mean
from rlx.placeholders import placeholders

PACKAGES = {
    "policy": "rlx.methods.policy",
    "unlearn": "rlx.methods.unlearning",
    "reward": "rlx.rewards",
    "benchmark": "rlx.benchmarks",
}
KIND_NAMES = {"policy": "policy loss", "unlearn": "unlearning method", "reward": "reward", "benchmark": "benchmark"}
"""Each kind of component in words."""
COMMANDS = {
    "policy": "rlx train --algo",
    "unlearn": "rlx unlearn --method",
    "reward": "rlx train --reward",
    "benchmark": "rlx eval --bench",
}
"""The option that takes a component of each kind."""
F = TypeVar("F", bound=Callable[..., Any])


class Hyper(BaseModel):
    """Base class of a method's parameters: frozen, typed, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Component:
    """One registered function and its declarations.

    Example:
        ``Component(kind="policy", name="dgpo", fn=dgpo, hyper=DGPO, paper="2603.14389", official="...:L1-L9")``
    """

    kind: str
    name: str
    fn: Callable[..., Any]
    hyper: type[Hyper]
    """Type of the function's ``hp`` argument; ``Hyper`` itself when it takes none."""
    paper: str = ""
    """arXiv number, or a description if there is no paper."""
    official: str = ""
    """``repo@commit:path:lines`` of the code that the golden values come from."""
    needs: frozenset[str] = frozenset()
    """Inputs that the engine must compute in addition to log-probs, such as ``entropy``."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Named parameter sets by source, selected as ``name@preset``."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Defaults for other keys of the spec (dotted) that belong to the method, such as ``batch.reduction``."""
    requires: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the spec (dotted) that must have this value for the method to be the published one."""
    whole_batch: Callable[..., Any] | None = None
    """``(logprobs_bt, batch, hp) -> dict`` of scalars and [b, t] tensors over the whole optimiser batch and all
    processes, computed without gradient before the loss; reaches the method as ``batch.statistics``."""
    needs_if: Callable[[Any], frozenset[str]] | None = None
    """A function from the method's parameters to inputs that they need in addition to ``needs``."""
    after_update: Callable[..., Any] | None = None
    """``(hp, means) -> hp``: the parameters after an update, from the mean of each of its terms (a dual variable)."""
    plain: bool = False
    """Whether the function is a reward without ``@register``; such a function gets its arguments by name."""

    def needed(self, hp: Hyper) -> frozenset[str]:
        """Everything the engine must compute for the method with these parameters."""
        return self.needs | (self.needs_if(hp) if self.needs_if else frozenset())


@dataclass(frozen=True, slots=True)
class Method:
    """A component with its validated parameters.

    Example:
        ``Method(get("policy", "dgpo"), DGPO(n=1, m=2))``
    """

    component: Component
    hyper: Hyper


_components: dict[tuple[str, str], Component] = {}
_declared: dict[tuple[str, str], Component] = {}
"""Components whose functions cannot be called."""


def register(
    kind: str,
    *,
    paper: str = "",
    official: str = "",
    needs: frozenset[str] | set[str] = frozenset(),
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    requires: Mapping[str, Any] | None = None,
    whole_batch: Callable[..., Any] | None = None,
    needs_if: Callable[[Any], frozenset[str]] | None = None,
    after_update: Callable[..., Any] | None = None,
) -> Callable[[F], F]:
    """Register the decorated function under its own name; see ``Component`` for the arguments."""

    def decorate(fn: F) -> F:
        component = Component(
            kind=kind,
            name=fn.__name__,
            fn=fn,
            hyper=_hyper_type(fn),
            paper=paper,
            official=official,
            needs=frozenset(needs),
            presets=dict(presets or {}),
            recipe={**(recipe or {}), **(requires or {})},
            requires=dict(requires or {}),
            whole_batch=whole_batch,
            needs_if=needs_if,
            after_update=after_update,
        )
        _components[kind, fn.__name__] = component
        return fn

    return decorate


def _hyper_type(fn: Callable[..., Any]) -> type[Hyper]:
    """The type of ``hp`` in a function's signature."""
    hint = typing.get_type_hints(fn).get("hp", Hyper)
    if not (inspect.isclass(hint) and issubclass(hint, Hyper)):
        raise UserError(f"{fn.__name__}: the type of 'hp' is {hint!r}", fix="make it a subclass of rlx.registry.Hyper")
    return hint


def names(kind: str) -> list[str]:
    """Names of one kind's components, sorted, read from file names without importing any.

    A file without ``@register("<kind>"`` only supports its siblings and is left out.
    """
    package = importlib.import_module(PACKAGES[kind])
    registered = []
    for path in package.__path__:
        for module in pkgutil.iter_modules([path]):
            text = (Path(path) / f"{module.name}.py").read_text(encoding="utf-8") if not module.ispkg else ""
            if re.search(rf'@register\(\s*"{kind}"', text):
                registered.append(module.name)
    return sorted(registered)


def get(kind: str, name: str, key: str = "name") -> Component:
    """The component ``name`` of ``kind``, importing its file on first use.

    Args:
        kind: ``policy``, ``unlearn``, ``reward`` or ``benchmark``.
        name: a registered name, or ``path/to/file.py:function`` for one of the user's own.
        key: the spec key the name came from, for the error sentence.

    Raises:
        UserError: for an unknown name (with the nearest match and the choices) or a file that does not load.
    """
    if ".py:" in name or name.endswith(".py"):
        return _from_file(kind, name, key)
    if (kind, name) not in _components:
        choices = names(kind)
        if name not in choices:
            raise _unknown(kind, name, key, choices)
        importlib.import_module(f"{PACKAGES[kind]}.{name}")
    return _components[kind, name]


def declared(kind: str, name: str, key: str = "name") -> Component:
    """The component for its declarations alone: parameters, presets, recipe, sources and docstring.

    A method of rlx is read without importing torch, if torch is not imported yet; its functions cannot be called.

    Args:
        kind: as for ``get``.
        name: as for ``get``.
        key: as for ``get``.

    Raises:
        UserError: as ``get``.
    """
    needs_torch = kind in ("policy", "unlearn") and "torch" not in sys.modules
    if not needs_torch or (kind, name) in _components or name not in names(kind):
        return get(kind, name, key)
    if (kind, name) not in _declared:
        before = dict(_components)
        with placeholders(("torch", "rlx.numerics"), forget=(PACKAGES[kind],)):
            importlib.import_module(f"{PACKAGES[kind]}.{name}")
        _declared[kind, name] = _components[kind, name]
        _components.clear()
        _components.update(before)
    return _declared[kind, name]


def _unknown(kind: str, name: str, key: str, choices: list[str]) -> UserError:
    """The error for a name that no component of the kind has; names the command if another kind has it."""
    others = [other for other in PACKAGES if other != kind and name in names(other)]
    if others:
        return UserError(
            f"{key} '{name}' is not a known {KIND_NAMES[kind]}: {KIND_NAMES[others[0]]}s have this name",
            fix=f"use {COMMANDS[others[0]]} {name}; choices here: {', '.join(choices)}",
        )
    return UserError(f"{key} '{name}' is not a known {KIND_NAMES[kind]}", fix=did_you_mean(name, choices))


def _from_file(kind: str, name: str, key: str) -> Component:
    """A component from a Python file outside the package, named ``path.py:function``."""
    file, _, function = name.partition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise UserError(f"{key} '{name}': there is no file {path}", fix="give path/to/file.py:function")
    function = function or path.stem
    module_name = f"rlx_user_{path.stem}"
    before = dict(_components)
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{key} '{name}': {path} is not a Python file", fix="give path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{key} '{name}': {path} does not load ({type(error).__name__}: {error})") from error
    component = _components.get((kind, function))
    previous = before.get((kind, function))
    _components.clear()
    _components.update(before)
    if kind == "reward" and (component is None or component is previous):
        return _plain_reward(module, name, function, key)
    if component is None or component is previous:
        raise UserError(
            f"{key} '{name}': {path} registers no {KIND_NAMES[kind]} called '{function}'",
            fix=f'decorate it with @register("{kind}")',
        )
    return component


def _plain_reward(module: ModuleType, name: str, function: str, key: str) -> Component:
    """A function of the user's file without ``@register``, as a reward.

    Raises:
        UserError: when the file has no such function, with the functions that it has.
    """
    fn = vars(module).get(function)
    if not callable(fn) or inspect.isclass(fn):
        choices = [
            other
            for other, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not other.startswith("_")
        ]
        raise UserError(
            f"{key} '{name}': {module.__file__} has no function '{function}'", fix=did_you_mean(function, choices)
        )
    return Component(kind="reward", name=function, fn=fn, hyper=Hyper, plain=True)
