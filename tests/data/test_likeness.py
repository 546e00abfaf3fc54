"""Questions in disguise are found in what was learned from, and other questions are not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from truing.data.likeness import Kind, Questions, fingerprint
from truing.data.normal import segments, tokens_of
from truing.data.split import split, unseen, without
from truing.errors import DataError
from truing.records import Demonstration, Judgement, Message, Messages, Records, Verdict, prompt_id

TOPICS = (
    ("How far is the harbour of Genoa from the old lighthouse", "What do bees eat in a winter without flowers"),
    ("Who painted the ceiling of the small chapel in Arezzo", "When did the tram line to the airport open"),
    ("Which of the 3 rivers floods the lower town most often", "Where can a sailor buy tar for an oak hull"),
    ("Why does bread rise faster near a warm stove", "How many strings has a baroque lute"),
    ("Name a tree that keeps its leaves in snow", "What is 17 + 25 - 4"),
    ("Which metal melts first in a candle", "How do I fold a map of the coast"),
    ("Who rules when the mayor is ill", "What colour is the flag of Chad"),
    ("How deep is the well behind the abbey", "Is a tomato a fruit or a vegetable"),
    ("Which letter follows the letter q", "How long may a cat sleep in a day"),
    ("What does a cooper make from staves", "Where do storks go in October"),
)
QUESTIONS = tuple(f"{text}?" for pair in TOPICS for text in pair)
"""Twenty held-out prompts."""
OTHERS = tuple(
    f"{start} {end}?"
    for start in ("How far is the market of Pisa from", "Who repaired the organ in", "What is 17 + 26 -", "Why is")
    for end in ("the old harbour", "a small chapel", "4 and 5", "the lute of a sailor", "Genoa")
)
"""Twenty other questions in much the same words."""


def turn(text: str) -> Messages:
    return (Message("user", text),)


def wide(text: str) -> str:
    """A text in full-width letters."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "　" for c in text)


def looks_alike(text: str) -> str:
    """A text with Cyrillic letters and a zero-width space."""
    return text.translate(str.maketrans("aeocpx", "аеосрх")).replace(" ", " \u200b", 1)


def accented(text: str) -> str:
    return "".join(c + "\u0301" if c in "aeiou" else c for c in text)


def after_a_greeting(text: str) -> Messages:
    """A question behind another turn, which differs from row to row."""
    greeting = Message("user", f"Good morning from room {QUESTIONS.index(text)}.")
    return (greeting, Message("assistant", "Good morning! What can I do?"), *turn(text))


NAMED: dict[str, Callable[[str], Messages]] = {
    "full stop": lambda text: turn(text + "."),
    "full width": lambda text: turn(wide(text)),
    "system": lambda text: (Message("system", "You are a careful guide."), *turn(text)),
    "case and blanks": lambda text: turn(f"  {text.upper()} ".replace(" ", " \n ")),
    "polite": lambda text: turn(f"Could you please answer the following: {text} Thank you very much!"),
    "conversation": after_a_greeting,
}
"""The six disguises that the issue names."""
MORE: dict[str, Callable[[str], Messages]] = {
    "look-alikes": lambda text: turn(looks_alike(text)),
    "accents": lambda text: turn(accented(text)),
    "markdown": lambda text: turn(f"> **{text}**"),
    "quotes": lambda text: turn(f"“{text}”"),
    "entities": lambda text: turn(text.replace(" ", "&nbsp;")),
    "digits": lambda text: turn(text.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))),
    "in a longer prompt": lambda text: turn(f"My aunt sent me a letter.\n{text}\nShe is impatient. Answer in a line."),
    "few-shot": lambda text: turn(f"Q: Who wrote it?\nA: Nobody.\nQ: {text}\nA: That is known.\nQ: And why?\nA:"),
    "system alone": lambda text: (Message("system", text), *turn("Go on.")),
}


def demonstrations(prompts: list[Messages]) -> Records:
    made = tuple(Demonstration(prompt, (Message("assistant", "So it is."),)) for prompt in prompts)
    return Records("d", made, tuple(range(1, len(made) + 1)))


def pairs(prompts: list[Messages]) -> Records:
    sides = ((Message("assistant", "yes"),), (Message("assistant", "no"),))
    made = tuple(Judgement(prompt_id(p), p, sides, Verdict("choice", 0)) for p in prompts)
    return Records("p", made, tuple(range(1, len(made) + 1)))


ASKED = demonstrations([turn(text) for text in QUESTIONS])
NOISE = [turn(text) for text in OTHERS]


@pytest.mark.parametrize("disguise", [*NAMED, *MORE])
@pytest.mark.parametrize("records", [demonstrations, pairs])
def test_twenty_of_twenty_in_every_disguise(records: Callable[[list[Messages]], Records], disguise: str) -> None:
    change = (NAMED | MORE)[disguise]
    learned = records([*NOISE, *(change(text) for text in QUESTIONS)])
    matches = fingerprint(learned).nearest(Questions(ASKED))
    assert [match.place - len(NOISE) if match else None for match in matches] == list(range(20))
    with pytest.raises(DataError, match="nothing is held out"):
        unseen(ASKED, [learned])
    assert len(without(learned, ASKED)) == len(NOISE), "and the way out takes out these rows and no other"


def test_what_is_only_similar_is_not_met() -> None:
    """Other numbers, signs, letters and places make another question."""
    assert fingerprint(demonstrations(NOISE)).nearest(Questions(ASKED)) == [None] * 20
    close = [
        "What is 17 + 25 + 4?",
        "What is 17 + 2 - 54?",
        "Which letter follows the letter z?",
        "Is a tomato a fruit?",
    ]
    assert fingerprint(demonstrations([turn(text) for text in close])).nearest(Questions(ASKED)) == [None] * 20


def kinds_of(learned: str, asked: str) -> Kind | None:
    match = fingerprint(demonstrations([turn(learned)])).nearest(Questions(demonstrations([turn(asked)])))[0]
    return match.kind if match else None


def test_the_kind_says_how_alike() -> None:
    long = " ".join(f"word{i}" for i in range(30))
    assert kinds_of(f" {long.upper()}", long) == "exact"
    assert kinds_of(f"{long}!", long) == "normalised"
    assert kinds_of(f"so it began with {long} and went on", long) == "contained"
    assert kinds_of(long.replace("word15", "other"), long) == "overlapping"
    assert kinds_of(" ".join("other" if i % 5 == 2 else f"word{i}" for i in range(30)), long) is None


def test_a_template_tells_no_question_from_another() -> None:
    """Twenty-five words that all share and three of their own: what another row of the exam has too says nothing."""
    frame = " ".join(f"frame{i}" for i in range(25))
    asked = demonstrations([turn(f"{frame} a{i} b{i} c{i}") for i in range(9)])
    learned = demonstrations([turn(f"{frame} d{i} e{i} f{i}") for i in range(9)])
    assert fingerprint(learned).nearest(Questions(asked)) == [None] * 9
    assert all(fingerprint(asked).nearest(Questions(asked)))


def test_a_system_message_before_all_is_a_frame_and_one_of_its_own_a_part() -> None:
    def under(*rules: str) -> Records:
        prompts = [(Message("system", rule), *turn(text)) for rule, text in zip(rules, QUESTIONS, strict=False)]
        return demonstrations(prompts)

    learned = demonstrations([turn(text) for text in QUESTIONS[:3]])
    with pytest.raises(DataError, match="nothing is held out"):
        unseen(under(*["Be kind."] * 3), [learned])
    assert len(unseen(under("It costs 3.", "It costs 4.", "It costs 5."), [learned])) == 3


def test_a_fingerprint_of_many_rows_is_bounded_and_still_finds() -> None:
    texts = [" ".join(f"w{(i * 31 + j * j) % 997}" for j in range(60)) for i in range(400)]
    learned = demonstrations([turn(f"before {text} behind") for text in texts])
    whole, small = fingerprint(learned), fingerprint(learned, most=4000)
    assert (whole.window, len(whole.grams.hashes)) == (1, 400 * 121)
    assert small.window == 32 and len(small.grams.hashes) <= 4000
    asked = Questions(demonstrations([turn(text) for text in texts[::7]]))
    for prints in (whole, small):
        matches = prints.nearest(asked)
        assert [match.place if match else None for match in matches] == list(range(0, 400, 7))


def test_a_split_keeps_a_question_and_its_disguise_together() -> None:
    prompts = [change(text) for text in QUESTIONS for change in NAMED.values()]
    train, exam = split(demonstrations([*NOISE, *prompts]), eval=0.3)
    assert len(unseen(exam, [train])) == len(exam)
    assert {(row - 21) // 6 for row in exam.rows if row > 20}.isdisjoint(
        (row - 21) // 6 for row in train.rows if row > 20
    )


def test_text_without_turns_is_read_too() -> None:
    made = tuple(
        Demonstration((), (Message("assistant", f"An old book. {text.upper()} Nobody knows."),)) for text in QUESTIONS
    )
    text = Records("t", made, tuple(range(1, 21)))
    assert all(fingerprint(text).nearest(Questions(ASKED)))


def test_a_row_without_words_meets_itself_alone() -> None:
    asked = demonstrations([turn("???"), turn("🙂"), turn("")])
    learned = demonstrations([turn("!!"), turn("🙂")])
    assert [match and match.kind for match in fingerprint(learned).nearest(Questions(asked))] == [None, "exact", None]


@pytest.mark.parametrize("piece", ["- ", "*a", "<>", "( ", "1-", "a - b "])
def test_signs_by_the_hundred_thousand_take_a_moment(piece) -> None:
    """Each sign looks at what stands beside it, and not at all that does."""
    begun = time.process_time()
    assert len(tokens_of(piece * 100_000)) < 400_000
    assert time.process_time() - begun < 5


APART = [
    ("sort a list in C++", "sort a list in C#"),
    ("sort a list in C", "sort a list in C#"),
    ("is a != b in this code", "is a == b in this code"),
    ("what does a && b give here", "what does a || b give here"),
    (r"what does \d+ match here", r"what does \d* match here"),
    ("is p ∧ q true now", "is p ∨ q true now"),
    ("draw A ∪ B for me", "draw A ∩ B for me"),
    ("solve x ≤ 3 for me", "solve x ≥ 3 for me"),
    ("solve x ≠ 3 for me", "solve x = 3 for me"),
    ("what is √16 as a number", "what is 16 as a number"),
    ("is $100 much money", "is €100 much money"),
    ("round 1,23 for me", "round 12,3 for me"),
    ("solve -x > 0 for me", "solve x > 0 for me"),
    ("is foo < bar in this list", "is foo > bar in this list"),
    ("what does 😀 mean in a message", "what does 😢 mean in a message"),
    ("what does ♂ stand for", "what does ♀ stand for"),
    ("when is the <table> tag used", "when is the <form> tag used"),
    ("when is the <b> tag used", "when is the <i> tag used"),
    ("when is <br> used", "when is <hr> used"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_questions_that_a_sign_tells_apart(one: str, other: str) -> None:
    """Of code, logic, mathematics and pages; and each is still found in capitals and behind other blanks."""
    assert segments(one) != segments(other)
    assert segments(one.replace(" ", "  ").upper().replace(r"\D", r"\d")) == segments(one)


def test_a_text_that_is_dressed_is_the_same() -> None:
    plain = segments("what is 1,234 times 2")
    for dressed in ("**what** is `1,234` times 2?", "<b>what is 1234</b> times<br> 2", "# what is 1234 times 2"):
        assert [token for part in segments(dressed) for token in part] == [token for part in plain for token in part]


def test_rows_of_one_template_are_compared_in_a_moment() -> None:
    """Their common words stand in every row, and only their own are looked for."""
    text = "you are a shop assistant who writes for a catalogue of many things; describe the product called item{0} "
    text += "made by maker{1} in two short paragraphs for customers who know nothing of it, without its price"
    answer = (Message("assistant", "b"),)
    made = tuple(Demonstration(turn(text.format(i, i * 7)), answer) for i in range(2000))
    known, asked = (Records("d", part, tuple(range(1, 1001))) for part in (made[:1000], made[1000:]))
    begun = time.process_time()
    assert not any(fingerprint(known).nearest(Questions(asked)))
    assert time.process_time() - begun < 30
