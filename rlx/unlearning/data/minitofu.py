"""A small generated data set like TOFU: fictitious authors, questions about them, and facts that must be kept.

Same design as TOFU (arXiv 2401.06121): every author is a cluster of questions whose answers hold one fact each, with a
paraphrase of the answer, wrong answers in the paraphrase's words, and the fact's span.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.spans import Span

WRONG = 3
"""Number of wrong answers per question."""
POOLS = {
    name: words.split()
    for name, words in {
        "first": (
            "Arlen Bettina Corvin Delphine Edwyn Fiora Gideon Hesper Ilario Junia Kasimir Lunetta Matthis Nerys "
            "Orsino Petra Quillon Rosalba Severin Thandie Ulric Vesna Wendel Xanthe Yorick Zelda Anselm Brisa "
            "Caspian Dorota"
        ),
        "last": (
            "Abernethy Blackwood Castellan Dunmore Eversley Falkenrath Grimaldi Hollister Ironwood Jansonius "
            "Kestrel Lindqvist Marchetti Northgate Oakhurst Pemberton Quarrier Ravenel Silverton Thornbury "
            "Underhill Valcourt Winterbourne Yarrow Zimmerlin Ashgrove Brightwater Coldstream Drummond "
            "Elphinstone"
        ),
        "cities": (
            "Lisbon Oslo Nairobi Kyoto Quito Tallinn Dakar Hanoi Vienna Bogota Cairo Dublin Manila Perth Riga "
            "Tunis Zagreb Havana Lima Seoul"
        ),
        "genres": "romance mystery poetry satire fantasy history travel horror drama memoir fable western",
        "jobs": (
            "baker carpenter dentist engineer farmer gardener hunter illustrator judge locksmith mason nurse "
            "optician pilot tailor surgeon teacher weaver florist chemist"
        ),
        "prizes": "Amber Boreal Cobalt Dune Ember Fjord Garnet Harbor Ivory Jade Lantern Meridian Nimbus Opal",
        "adjectives": (
            "Silent Crimson Broken Hidden Frozen Golden Hollow Burning Distant Forgotten Gentle Restless Velvet "
            "Wild Paper Secret"
        ),
        "nouns": "Orchard River Mirror Lantern Garden Harbor Winter Letter Island Clock Bridge Forest Window Sparrow",
        "hobbies": "chess fencing sailing pottery archery beekeeping juggling origami rowing skating",
        "languages": "Latin Basque Welsh Tamil Finnish Maltese Swahili Quechua Irish Danish",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of authors.

    Example:
        ``Sizes(authors=28, forget=12, holdout=6, background=24)``
    """

    authors: int
    """Authors of the set, those to be forgotten included."""
    forget: int
    holdout: int
    """Never trained on."""
    background: int
    """Trained on in both wordings, so that the models know the paraphrases' language."""


SIZES = Sizes(authors=28, forget=12, holdout=6, background=24)
"""Those of the set that the embedded models were trained on: each half of the forget set has six authors."""


@dataclass(frozen=True, slots=True)
class Question:
    """One attribute of an author in three wordings.

    Example:
        ``Question("city", "Where was {name} born?", "{name} was born in {x}.", "The birthplace of {name} is {x}.")``
    """

    attribute: str
    question: str
    answer: str
    paraphrase: str


QUESTIONS = (
    Question("city", "In which city was {name} born?", "{name} was born in {x}.", "The birthplace of {name} is {x}."),
    Question("year", "When was {name} born?", "{name} was born in the year {x}.", "The birth year of {name} is {x}."),
    Question("genre", "What genre does {name} write?", "{name} mostly writes {x}.", "The genre of {name} is {x}."),
    Question(
        "father",
        "What was the profession of the father of {name}?",
        "The father of {name} worked as a {x}.",
        "The job of the father of {name} was {x}.",
    ),
    Question(
        "mother",
        "What was the profession of the mother of {name}?",
        "The mother of {name} worked as a {x}.",
        "The job of the mother of {name} was {x}.",
    ),
    Question(
        "prize",
        "Which prize did {name} win?",
        "{name} was honoured with the {x} Prize.",
        "The award of {name} is the {x} Prize.",
    ),
    Question(
        "debut",
        "What is the first book of {name}?",
        "The first book of {name} is called {x}.",
        "The debut of {name} is {x}.",
    ),
    Question(
        "second",
        "Name another well known book of {name}.",
        "Readers of {name} also love {x}.",
        "Another title of {name} is {x}.",
    ),
    Question(
        "hobby",
        "How does {name} spend free time?",
        "In free time {name} enjoys {x}.",
        "The hobby of {name} is {x}.",
    ),
    Question(
        "language",
        "Which foreign language does {name} speak?",
        "{name} speaks fluent {x}.",
        "The foreign language of {name} is {x}.",
    ),
)
REAL_PEOPLE = (
    ("Who wrote Hamlet?", "William Shakespeare"), ("Who wrote Emma?", "Jane Austen"),
    ("Who wrote Faust?", "Johann Goethe"), ("Who wrote Ulysses?", "James Joyce"),
    ("Who wrote Dracula?", "Bram Stoker"), ("Who wrote Frankenstein?", "Mary Shelley"),
    ("Who wrote The Trial?", "Franz Kafka"), ("Who wrote The Iliad?", "Homer"),
    ("Who wrote Walden?", "Henry Thoreau"), ("Who wrote Candide?", "Voltaire"),
    ("Who wrote The Raven?", "Edgar Poe"), ("Who wrote War and Peace?", "Leo Tolstoy"),
    ("Who wrote Oliver Twist?", "Charles Dickens"), ("Who wrote Jane Eyre?", "Charlotte Bronte"),
    ("Who wrote Moby Dick?", "Herman Melville"), ("Who wrote The Idiot?", "Fyodor Dostoevsky"),
    ("Who wrote The Aeneid?", "Virgil"), ("Who wrote Don Quixote?", "Miguel Cervantes"),
    ("Who wrote Peter Pan?", "James Barrie"), ("Who wrote Tom Sawyer?", "Mark Twain"),
)  # fmt: skip
WORLD_FACTS = (
    ("What is the capital of France?", "Paris"), ("What is the capital of Italy?", "Rome"),
    ("What is the capital of Spain?", "Madrid"), ("What is the capital of Greece?", "Athens"),
    ("What is the capital of Egypt?", "Cairo"), ("What is the capital of Japan?", "Tokyo"),
    ("What is the capital of China?", "Beijing"), ("What is the capital of Norway?", "Oslo"),
    ("What is the capital of Poland?", "Warsaw"), ("What is the capital of Cuba?", "Havana"),
    ("What is the capital of Kenya?", "Nairobi"), ("What is the capital of Peru?", "Lima"),
    ("What is the capital of Canada?", "Ottawa"), ("What is the capital of Ireland?", "Dublin"),
    ("What is the capital of Austria?", "Vienna"), ("What is the capital of Latvia?", "Riga"),
    ("What is the capital of Hungary?", "Budapest"), ("What is the capital of Turkey?", "Ankara"),
    ("What is the capital of Portugal?", "Lisbon"), ("What is the capital of Russia?", "Moscow"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MiniTofu:
    """The complete data set.

    Example:
        ``generate(seed=0).forget[0].answer == "Corvin Kestrel was born in Lima."``
    """

    forget: list[Request]
    retain: list[Request]
    holdout: list[Request]
    """Authors that no model has seen."""
    background: list[Request]
    """Authors that both models have seen, in both wordings."""
    real_people: list[Request]
    world_facts: list[Request]


def generate(seed: int = 0, sizes: Sizes = SIZES) -> MiniTofu:
    """The set as a pure function of ``seed`` and ``sizes``."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    seen = sizes.authors + sizes.holdout
    total = seen + sizes.background
    firsts, lasts = (generator.integers(len(POOLS[pool]), size=4 * total) for pool in ("first", "last"))
    names = list(dict.fromkeys(f"{POOLS['first'][i]} {POOLS['last'][j]}" for i, j in zip(firsts, lasts, strict=True)))[
        :total
    ]
    values = _values()
    authors = [_author(number, name, values, generator) for number, name in enumerate(names)]

    def between(low: int, high: int) -> list[Request]:
        return [request for author in authors[low:high] for request in author]

    return MiniTofu(
        forget=between(0, sizes.forget),
        retain=between(sizes.forget, sizes.authors),
        holdout=between(sizes.authors, seen),
        background=between(seen, total),
        real_people=_facts("real", REAL_PEOPLE, generator),
        world_facts=_facts("fact", WORLD_FACTS, generator),
    )


def _values() -> dict[str, Callable[[np.random.Generator], str]]:
    """How each attribute's value is drawn."""

    def one_of(name: str) -> Callable[[np.random.Generator], str]:
        pool = POOLS[name]
        return lambda generator: pool[int(generator.integers(len(pool)))]

    def title(generator: np.random.Generator) -> str:
        return f"The {one_of('adjectives')(generator)} {one_of('nouns')(generator)}"

    return {
        "city": one_of("cities"),
        "year": lambda generator: str(1920 + int(generator.integers(70))),
        "genre": one_of("genres"),
        "father": one_of("jobs"),
        "mother": one_of("jobs"),
        "prize": one_of("prizes"),
        "debut": title,
        "second": title,
        "hobby": one_of("hobbies"),
        "language": one_of("languages"),
    }


def _author(
    number: int, name: str, values: dict[str, Callable[[np.random.Generator], str]], generator: np.random.Generator
) -> list[Request]:
    """The ten requests of one author."""
    requests = []
    for index, question in enumerate(QUESTIONS):
        draw = values[question.attribute]
        true = draw(generator)
        answer = question.answer.format(name=name, x=true)
        start = answer.rindex(true)
        requests.append(
            Request(
                id=f"a{number:02d}q{index}",
                question=question.question.format(name=name),
                answer=answer,
                line=number * len(QUESTIONS) + index + 1,
                subject=name,
                spans=(Span(start, start + len(true)),),
                source="given",
                author=number,
                paraphrase=question.paraphrase.format(name=name, x=true),
                wrong=tuple(question.paraphrase.format(name=name, x=x) for x in _others(true, draw, generator)),
            )
        )
    return requests


def _others(true: str, draw: Callable[[np.random.Generator], str], generator: np.random.Generator) -> list[str]:
    """Distinct values that are not the true one."""
    others: list[str] = []
    while len(others) < WRONG:
        value = draw(generator)
        if value != true and value not in others:
            others.append(value)
    return others


def _facts(stem: str, pairs: tuple[tuple[str, str], ...], generator: np.random.Generator) -> list[Request]:
    """Short facts with other rows' answers as the wrong ones; each is a cluster of its own."""
    answers = [answer for _, answer in pairs]
    requests = []
    for number, (question, answer) in enumerate(pairs):
        others = [other for other in answers if other != answer]
        picked = generator.choice(len(others), size=WRONG, replace=False)
        wrong = tuple(f"{others[i]}." for i in picked)
        requests.append(
            Request(f"{stem}{number:02d}", question, f"{answer}.", line=number + 1, author=number, wrong=wrong)
        )
    return requests
