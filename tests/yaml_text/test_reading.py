"""YAML 1.2 as it is read: the values of scalars, and what is refused by name and line."""

from __future__ import annotations

import math

import pytest

from truing.yaml_text.reading import YamlError, read

SCALARS = {
    "1e-5": 1e-5, "1E5": 1e5, "1e+5": 1e5, "1.5e3": 1500.0, ".5": 0.5, "-.5": -0.5, "1.": 1.0, "0.10": 0.1, "010.5": 10.5,
    "010": 10, "-010": -10, "08": 8, "+1": 1, "0": 0, "0o10": 8, "0x1F": 31, ".inf": math.inf, "-.INF": -math.inf,
    "true": True, "True": True, "FALSE": False, "null": None, "~": None, "": None,
    "on": "on", "off": "off", "yes": "yes", "no": "no", "y": "y", "N": "N", "On": "On", "tRue": "tRue", "nil": "nil",
    "1:30": "1:30", "2024-01-01": "2024-01-01", "12:30:45": "12:30:45", "1_000": "1_000", "0b11": "0b11", "-0x1F": "-0x1F",
    "1e": "1e", "e5": "e5", ".": ".", "=": "=", "<<": "<<", "1e999": "1e999", "9" * 400: "9" * 400, "١": "١",
    "'010'": "010", '"on"': "on", "'1e-5'": "1e-5", '"\\x41\\t"': "A\t", "'it''s'": "it's", "a b": "a b",
}  # fmt: skip
"""A scalar of the core schema of YAML 1.2.2, chapter 10.3, and its value."""


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=lambda part: repr(part)[:20])
def test_the_value_of_a_scalar(text, value):
    for document in (f"a: {text}", f"a: {text} # a note"):
        read_value = read(document, "it").plain["a"]
        assert read_value == value and type(read_value) is type(value)


def test_not_a_number_is_one():
    assert math.isnan(read("a: .nan", "it").plain["a"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{data: world:comparisons?n=50}", {"data": "world:comparisons?n=50"}),
        ("{data: world:comparisons?n=50&seed=1, b: [x?, y?z]}", {"data": "world:comparisons?n=50&seed=1", "b": ["x?", "y?z"]}),
        ("{a: http://x/y?z=1, b: c:d}", {"a": "http://x/y?z=1", "b": "c:d"}),
        ("{mine.py:loss: {beta: 1}}", {"mine.py:loss": {"beta": 1}}),
        ('{\n\t"a": 1,\n\t"b": [1,\t2]\n}', {"a": 1, "b": [1, 2]}),
        ("010: a\non: b\n1e-5: c\nnull: d", {"010": "a", "on": "b", "1e-5": "c", "null": "d"}),
        ("'<<': a", {"<<": "a"}),
        ("a: |\n  x\n  y\nb: >\n  x\n  y\n", {"a": "x\ny\n", "b": "x y\n"}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("", {}),
        ("# nothing", {}),
        ("a: [ ]\nb: {}", {"a": [], "b": {}}),
        ("- - 1\n  - 2\n- {a: }", [[1, 2], {"a": None}]),
        ("word", "word"),
    ],
)  # fmt: skip
def test_the_value_of_a_document(text, value):
    assert read(text, "it").plain == value


def test_a_value_knows_its_line():
    root = read("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "it")
    first, second = root.entries["b"].value
    assert [node.line for node in (root, root.entries["a"], root.entries["b"], first, second)] == [1, 1, 2, 3, 4]
    assert [second.entries[key].line for key in "cd"] == [4, 5]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: &x 2", 2, "a page has no anchors (&) and aliases (*): write the value out wherever it is used"),
        ("a: 1\nb: *x", 2, "a page has no anchors (&) and aliases (*)"),
        ("a: 1\n&x b: 2", 2, "a page has no anchors (&) and aliases (*)"),
        ("a: &x [*x]", 1, "a page has no anchors (&) and aliases (*)"),
        ("a: 1\n<<: {b: 2}", 2, "a page has no merge keys (<<): write the merged entries out"),
        ("a: {b: 1,\n  <<: [{c: 2}]}", 2, "a page has no merge keys (<<)"),
        ("a: 1\nb: !!str 2", 2, "a page has no tags (tag:yaml.org,2002:str): write the value without one"),
        ("a: !x [1]", 1, "a page has no tags (!x)"),
        ("a: !x {b: 1}", 1, "a page has no tags (!x)"),
        ("!x a: 1", 1, "a page has no tags (!x)"),
        ("a: !!python/object/apply:os.system [ls]", 1, "a page has no tags (tag:yaml.org,2002:python/object/apply:os.system)"),
        ("%TAG ! x:\n---\na: 1", 2, "a page is YAML 1.2 without tags: take out the lines that begin with %"),
        ("a: 1\n---\nb: 1", 2, "a page is one document: take out the line ---"),
        ("a: 1\nb: 2\na: 3", 3, "'a' stands twice (first on line 1)"),
        ("a: 1\n'a': 3", 2, "'a' stands twice (first on line 1)"),
        ("a: 1\n? [b]\n: 2", 2, "a key must be a word"),
        ("a: 1\n? {b: 1}\n: 2", 2, "a key must be a word"),
        ("a: " + "[" * 99 + "[" + "]" * 100, 1, "is nested too deeply: more than 100"),
        ("[" * 50_000, 1, "is nested too deeply"),
        ("{a: " * 50_000, 1, "is nested too deeply"),
        ("- " * 50_000, 1, "is nested too deeply"),
        ("a: 1\nb: \x07", 2, "is not YAML: the character U+0007 may not stand in it"),
        ("a: 1\nb: [", 2, "expected the node content, but found '<stream end>'"),
        ("a: 1\n\tb: 2", 2, ""),
        ("a: @x", 1, "found character '@' that cannot start any token"),
        ("a: x: y", 1, "mapping values are not allowed here"),
        ("#" * 1_000_001, 0, "has 1,000,001 characters, and a page has at most 1,000,000"),
    ],
    ids=lambda part: repr(part)[:30],
)  # fmt: skip
def test_what_is_refused_and_where(text, line, problem):
    with pytest.raises(YamlError) as caught:
        read(text, "a page")
    assert problem in caught.value.problem and caught.value.line == line
    assert len(str(caught.value)) < 300


def test_a_hundred_levels_are_read():
    assert read("[" * 100 + "]" * 100, "it").line == 1


def test_mistakes_after_which_reading_goes_on_are_reported():
    reported = []
    root = read("a: 1\na: 2\n? [b]\n: 3\nc: 4\nc: 5", "it", lambda line, problem: reported.append((line, problem)))
    assert root.plain == {"a": 1, "c": 4}
    assert reported == [
        (2, "'a' stands twice (first on line 1)"),
        (3, "a key must be a word"),
        (6, "'c' stands twice (first on line 5)"),
    ]


def test_a_smaller_limit():
    assert read("a: 1", "it", most=4).plain == {"a": 1}
    with pytest.raises(YamlError, match="has 4 characters, and it has at most 3"):
        read("a: 1", "it", most=3)
