"""YAML as specs use it: every key once, and limits of size, depth and aliases."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 30
"""Mappings and lists inside of each other."""
MAX_VALUES = 100_000
"""Values of a spec in which an alias (``*name``) counts as everything that it repeats."""


class DuplicateKey(yaml.constructor.ConstructorError):
    """A key that a mapping has twice."""


class TooLarge(yaml.YAMLError):
    """A text beyond a limit; the message follows "spec file X"."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which keeps the last of repeated keys, with an error for them."""

    def construct_yaml_map(self, node: yaml.MappingNode) -> Any:
        """Construct a mapping; its keys are compared before ``<<`` merges an anchor's keys, which they may replace."""
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            is_merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if is_merge else self.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                problem = f"has the key '{key_node.value}' at line {lines[key]} and again at line {line}"
                raise DuplicateKey(None, None, problem, key_node.start_mark)
            lines[key] = line
        yield from super().construct_yaml_map(node)


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _UniqueKeyLoader.construct_yaml_map)


def load_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        DuplicateKey: for a key that a mapping has twice.
        TooLarge: for a text beyond a limit.
        yaml.YAMLError: for a text that is not YAML, or has a number or date that cannot be.
    """
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(f"has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    _check_events(text)
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except (ValueError, OverflowError, TypeError) as error:  # such as the date 2026-02-31
        raise yaml.YAMLError(str(error)) from None


def _check_events(text: str) -> None:
    """Check depth and number of values without building anything.

    Raises:
        TooLarge: beyond a limit, or for an alias inside of what it repeats.
    """
    sizes: dict[str, int] = {}
    heights: dict[str, int] = {}
    opened: list[list[Any]] = []  # anchor, number of values before it, levels inside of it
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, start, height = opened.pop()
            if anchor is not None:
                sizes[anchor], heights[anchor] = count - start, height + 1
            if opened:
                opened[-1][2] = max(opened[-1][2], height + 1)
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _, _ in opened):
                raise TooLarge(f"has the alias *{event.anchor} inside of what it repeats")
            count += sizes.get(str(event.anchor), 1)
            height = heights.get(str(event.anchor), 0)
            if opened:
                opened[-1][2] = max(opened[-1][2], height)
        else:
            count, height = count + 1, 0
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append([event.anchor, count - 1, 0])
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if len(opened) + height > MAX_DEPTH:
            raise TooLarge(f"has more than {MAX_DEPTH} levels of mappings and lists")
        if count > MAX_VALUES:
            raise TooLarge(f"has more than {MAX_VALUES:,} values, each alias counted as what it repeats")
