"""Sentences about wrong values in a spec, one for each kind of error that pydantic has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REQUIREMENTS: Mapping[str, str] = {
    # numbers
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer with fewer digits",
    "int_from_float": "an integer, without a fraction",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number, not nan or inf",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "decimal_type": "a decimal number",
    "decimal_parsing": "a decimal number",
    "decimal_max_digits": "a decimal number with at most {max_digits} digits",
    "decimal_max_places": "a decimal number with at most {decimal_places} digits after the point",
    "decimal_whole_digits": "a decimal number with at most {whole_digits} digits before the point",
    "fraction_type": "a fraction such as 1/3",
    "fraction_parsing": "a fraction such as 1/3",
    "complex_type": "a complex number such as 1+2j",
    "complex_str_parsing": "a complex number such as 1+2j",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "null",
    # text
    "string_type": "text (a number in quotes is text)",
    "string_unicode": "text in UTF-8",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches the pattern {pattern}",
    "string_not_ascii": "text of ASCII characters only",
    "bytes_type": "bytes",
    "bytes_too_short": "at least {min_length} bytes",
    "bytes_too_long": "at most {max_length} bytes",
    "bytes_invalid_encoding": "bytes that are valid {encoding}",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
    "url_type": "a URL",
    "url_parsing": "a URL such as https://host/path",
    "url_syntax_violation": "a URL such as https://host/path",
    "url_too_long": "a URL of at most {max_length} characters",
    "url_scheme": "a URL that begins with {expected_schemes}",
    "uuid_type": "a UUID",
    "uuid_parsing": "a UUID such as 123e4567-e89b-42d3-a456-426614174000",
    "uuid_version": "a UUID of version {expected_version}",
    "json_invalid": "valid JSON",
    "json_type": "text that contains JSON",
    # lists and mappings
    "list_type": "a list in brackets, such as [a, b]",
    "tuple_type": "a list in brackets, such as [a, b]",
    "named_tuple_type": "a list in brackets, such as [a, b]",
    "set_type": "a list in brackets, such as [a, b]",
    "frozen_set_type": "a list in brackets, such as [a, b]",
    "deque_type": "a list in brackets, such as [a, b]",
    "iterable_type": "a list in brackets, such as [a, b]",
    "iteration_error": "a list that can be read to its end",
    "set_item_not_hashable": "a list of numbers or texts, without lists or mappings in it",
    "too_short": "a list or mapping of at least {min_length} entries, not {actual_length}",
    "too_long": "a list or mapping of at most {max_length} entries",
    "dict_type": "a mapping such as {{key: value}}",
    "frozen_dict_type": "a mapping such as {{key: value}}",
    "ordered_dict_type": "a mapping such as {{key: value}}",
    "counter_type": "a mapping of names to counts",
    "mapping_type": "a mapping such as {{key: value}}",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
    "dataclass_type": "a section with keys of its own",
    "dataclass_exact_type": "a section with keys of its own",
    "union_tag_invalid": "a section whose {discriminator} is one of {expected_tags}",
    "union_tag_not_found": "a section with the key {discriminator}",
    "recursion_loop": "a value that does not contain itself; remove the YAML alias (*) that refers to its own section",
    "recursion_depth_exceeded": "less deeply nested",
    # dates and times
    "date_type": "a date such as 2026-01-31",
    "date_parsing": "a date such as 2026-01-31",
    "date_from_datetime_parsing": "a date such as 2026-01-31",
    "date_from_datetime_inexact": "a date without a time of day",
    "date_past": "a date in the past",
    "date_future": "a date in the future",
    "time_type": "a time such as 14:30",
    "time_parsing": "a time such as 14:30",
    "datetime_type": "a date and time such as 2026-01-31T14:30",
    "datetime_parsing": "a date and time such as 2026-01-31T14:30",
    "datetime_object_invalid": "a date and time such as 2026-01-31T14:30",
    "datetime_from_date_parsing": "a date and time such as 2026-01-31T14:30",
    "datetime_past": "a date and time in the past",
    "datetime_future": "a date and time in the future",
    "timezone_naive": "a time without a time zone",
    "timezone_aware": "a time with a time zone",
    "timezone_offset": "a time with the time zone's offset {tz_expected}",
    "time_delta_type": "a length of time such as 01:30:00",
    "time_delta_parsing": "a length of time such as 01:30:00",
    # Python objects, which only a call from Python can pass
    "is_instance_of": "a {class}",
    "is_subclass_of": "a subclass of {class}",
    "callable_type": "a function",
    "needs_python_object": "a Python object",
    "missing_sentinel_error": "left out",
    "ellipsis_error": "left out",
    "arguments_type": "a list or a mapping of arguments",
    "no_such_attribute": "an object with the attribute {attribute}",
    "get_attribute_error": "an object whose attributes can be read",
}
"""What a value must be, by pydantic's kind of error; ``{}`` holds the error's context."""
WHOLE_SENTENCES: Mapping[str, str] = {
    "missing": "{key} is missing",
    "missing_argument": "{key} is missing",
    "missing_keyword_only_argument": "{key} is missing",
    "missing_positional_only_argument": "{key} is missing",
    "extra_forbidden": "unknown key {key}",
    "unexpected_keyword_argument": "unknown key {key}",
    "unexpected_positional_argument": "there are more values than keys: {key} is {value}",
    "multiple_argument_values": "{key} is given twice",
    "invalid_key": "the key {value} is not text; put quotes around it",
    "frozen_field": "{key} cannot be changed after the spec was read",
    "frozen_instance": "{key} cannot be changed after the spec was read",
    "default_factory_not_called": "{key} has no value, because another key is wrong",
    "value_error": "{key} is {value}: {error}",
    "assertion_error": "{key} is {value}: {error}",
}
"""Complete sentences of the kinds that are not about what a value must be."""
PATTERNS: Mapping[str, str] = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a name of letters, digits, '.', '_' and '-' that begins with a letter or a digit",
    r"\{problem\}": "text with {problem} in it, where the question goes",
}
"""What the patterns in specs require, in words."""


def requirement(kind: str, context: Mapping[str, Any]) -> str:
    """What a value must be, without a verb; empty for kinds of ``WHOLE_SENTENCES``.

    Args:
        kind: pydantic's kind of error.
        context: the values that belong to the error, such as ``{"ge": 1}``.
    """
    if kind == "string_pattern_mismatch" and str(context.get("pattern")) in PATTERNS:
        return PATTERNS[str(context["pattern"])]
    template = REQUIREMENTS.get(kind, "")
    return template.format_map({name: _plain(value) for name, value in context.items()})


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
