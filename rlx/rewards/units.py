"""Units of measurement, and words that may and may not be left out around a value."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS: dict[str, tuple[str, Fraction]] = {}
for _dimension, _rows in {
    "length": "1/1000 mm millimeter; 1/100 cm centimeter; 1 m meter; 1000 km kilometer; 127/5000 inch; "
    "381/1250 ft foot feet; 1143/1250 yd yard; 201168/125 mile mi",
    "mass": "1/1000 mg milligram; 1 g gram; 1000 kg kilogram; 45359237/100000 lb lbs pound",
    "time": "1 s sec second; 60 min minute; 3600 h hr hour; 86400 day; 604800 week",
    "volume": "1/1000 ml mL milliliter; 1 L liter litre",
    "money": "1/100 cent; 1 dollar usd USD",
    "years": "1 year yr; 1/12 month",
}.items():
    for _row in _rows.split(";"):
        _factor, *_names = _row.split()
        for _name in _names:
            _UNITS[_name] = _UNITS[_name + "s"] = (_dimension, Fraction(_factor))
_UNITS |= {"inches": _UNITS["inch"], "metre": _UNITS["m"], "metres": _UNITS["m"], "cc": ("length3", Fraction(1, 10**6))}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "squared": 2, "cubed": 3}
_DOUBT = frozenset(
    ["not", "no", "never", "neither", "nor", "wrong", "incorrect", "maybe", "perhaps", "possibly", "either"]
)
_MEANINGFUL = _DOUBT | frozenset(
    [
        "none",
        "without",
        "except",
        "unless",
        "less",
        "more",
        "greater",
        "fewer",
        "least",
        "most",
        "than",
        "below",
        "above",
        "under",
        "over",
        "half",
        "third",
        "quarter",
        "double",
        "twice",
        "triple",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "dozen",
        "minus",
        "negative",
        "plus",
        "times",
        "infinitely",
        "infinite",
        "many",
        "undefined",
        "if",
        "when",
        "where",
        "mod",
        "modulo",
        "base",
        "choose",
        "divided",
        "to",
        "from",
        "between",
        "both",
        "even",
        "odd",
        "prime",
        "nonreal",
        "real",
        "imaginary",
    ],
)
"""Words that change what a value means; an answer that has one is compared as a text."""


def meaningful(words: str) -> bool:
    """Return whether words around a value change what it means, as in ``5 million`` or ``not 5``."""
    names = re.findall(r"[a-z]+", words.lower())
    if len(names) == 1 and names[0] in _POWERS:
        return True  # 5 squared
    return not _MEANINGFUL.isdisjoint(names)


def number_word(word: str) -> int | None:
    """The exponent of ten that a word such as ``million`` means."""
    return {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}.get(word.lower())


def doubtful(words: str) -> bool:
    """Return whether words in front of a value deny it or leave it open, as in ``maybe it is``."""
    return not _DOUBT.isdisjoint(re.findall(r"[a-z]+", words.lower()))


def unit(words: str, power: str = "") -> tuple[str, Fraction] | None:
    """The dimension of a unit and its size in the dimension's base unit; None for words that are no known unit.

    Example:
        ``unit("square cm") == ("length2", Fraction(1, 10000))``
    """
    names = re.findall(r"[A-Za-z]+", words)
    exponent = int(power) if power else 1
    exponent *= next((_POWERS[name] for name in names if name in _POWERS), 1)
    matches = [_UNITS.get(name) or _UNITS.get(name.lower()) for name in names if name not in _POWERS]
    if len(matches) != 1 or matches[0] is None:
        return None
    dimension, factor = matches[0]
    return (dimension if exponent == 1 else f"{dimension}{exponent}"), factor**exponent


def known_unit(name: str) -> bool:
    """Return whether a bare word is a unit."""
    return name in _UNITS
