"""Import of a module's declarations without the slow modules that only its functions use.

A method's file declares parameters, sources and needs, and imports torch for its function. To list or resolve methods,
rlx imports such files while torch and rlx.numerics are replaced by placeholders, and then forgets these modules: the
functions cannot be called, and a later import gets the real ones.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_lock = threading.Lock()


class Placeholder:
    """An object in place of one of a module that is not imported; it can be named, called and used in annotations."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<placeholder of {self._name}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self._name}.{name}")

    def __call__(self, *arguments: object, **options: object) -> Placeholder:
        """The result of a call is a placeholder too."""
        return self

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """A placeholder is no base of a class."""
        return ()

    def __getitem__(self, key: object) -> Placeholder:
        return self

    def __or__(self, other: object) -> Placeholder:
        return self

    def __ror__(self, other: object) -> Placeholder:
        return self


class _PlaceholderModule(ModuleType):
    """A module all of whose attributes are placeholders."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    """Gives placeholders for modules with these names, and for those inside them, to one thread."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """The specification of a placeholder, or None."""
        if threading.get_ident() != self._thread:
            return None
        if any(fullname == package or fullname.startswith(f"{package}.") for package in self._packages):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A placeholder."""
        return _PlaceholderModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is executed."""


@contextmanager
def placeholders(packages: Sequence[str], forget: Sequence[str]) -> Iterator[None]:
    """Replace modules that are not imported yet while this context imports others.

    Args:
        packages: names of the packages whose modules become placeholders.
        forget: packages whose modules use them; those that this context imports are imported again later.
    """
    with _lock:
        finder, before = _Finder(packages), set(sys.modules)
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            for name in set(sys.modules) - before:
                if any(name == package or name.startswith(f"{package}.") for package in (*packages, *forget)):
                    _forget(name)


def _forget(name: str) -> None:
    """Remove a module, also from its package's attributes."""
    module = sys.modules.pop(name)
    package, _, last = name.rpartition(".")
    parent = sys.modules.get(package)
    if parent is not None and vars(parent).get(last) is module:
        delattr(parent, last)
