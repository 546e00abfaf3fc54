"""How rewards are asked, checked, combined and counted: each bad case by its words, never a number."""

import asyncio
import math
import threading

import numpy as np
import pytest
import torch

from truing import registry
from truing.errors import RunFailed, UserError
from truing.objectives import advantage as adv
from truing.records import Message, Score
from truing.registry import RewardFunction, reward
from truing.rewards.builtin_verifier import number, verifier
from truing.rewards.call import Call, Response
from truing.rewards.combine import Cost, Rewards, Term, round_metrics

ASKED = (Message("user", "what is 6 times 7"),)
SAID = ["42", "it is 41", "forty-two", "#### 42.0"]
NEVER = threading.Event()


def answers(texts=SAID, groups=(0, 0, 1, 1), **row):
    pairs = zip(texts, groups, strict=True)
    return [Response(ASKED, text, tuple(range(len(text))), group, row) for text, group in pairs]


def of(fn, scope="response", place="", seconds=5.0, deterministic=False):
    function = RewardFunction(fn, scope, deterministic)
    function.place = place
    return Call(function, {}, seconds)


def values(call, given=None):
    return [s.value for s in call(given or answers())]


def test_a_function_is_given_what_its_signature_reads() -> None:
    def one(response, tokens, prompt, answer):
        return len(response) + 10 * tokens + len(prompt) + 100 * answer

    def many(responses, answer):
        return [len(r) + 100 * a for r, a in zip(responses, answer, strict=True)]

    def group(prompt, responses, answer):
        return [len(responses) + 100 * answer] * len(responses)

    given = answers(answer=7)
    assert values(of(one), given) == [11 * len(t) + 701 for t in SAID]
    assert values(of(many), given) == [len(t) + 700 for t in SAID]
    assert values(of(group, "group"), given) == [702.0] * 4
    assert values(of(group, "group"), answers(groups=(0, 1, 1, 1), answer=0)) == [1.0, 3.0, 3.0, 3.0]

    def perhaps(response, answer=None):
        return 0.0 if answer is None else float(answer)

    assert values(of(perhaps)) == [0.0] * 4 and values(of(perhaps), given) == [7.0] * 4
    with pytest.raises(UserError, match="reward 'one' reads 'answer', which the rows of the prompts do not have"):
        of(one)(answers(solution=1))


BAD = {
    "nan": (lambda response: math.nan, "gave nan, which is no finite number"),
    "infinite": (lambda response: -math.inf, "gave -inf, which is no finite number"),
    "none": (lambda response: None, "gave None, which is no finite number"),
    "text": (lambda response: "1.0", "gave '1.0', which is no finite number"),
    "raising": (lambda response: 1 / 0, "ZeroDivisionError: division by zero"),
    "leaving": (lambda response: exit(0), "SystemExit: 0"),
    "short": (lambda responses: [1.0] * 3, "gave 3 values for 4 responses"),
    "one for all": (lambda responses: 1.0, "gave 1 values for 4 responses"),
    "array": (lambda response: np.ones(2), r"gave array\(\[1., 1.\]\), which is no finite number"),
    "failed": (lambda response: Score(0.0, failed=True, why="the judge is away"), "the judge is away"),
    "nan score": (lambda response: Score(math.nan), "its value is nan"),
    "slow": (lambda response: NEVER.wait(60), "timed out after 0.05 s"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_score_is_missing_and_says_why(case) -> None:
    """Fault 40: it ends the run, or with `drop` is left out and counted; nowhere does it become a number."""
    fn, said = BAD[case]
    call = of(fn, place="mine.py:fn" if case == "slow" else "", seconds=0.05 if case == "slow" else 5.0)
    found = call(answers())
    assert all(s.failed and (math.isnan(s.value) or case == "failed") for s in found)
    with pytest.raises(RunFailed, match=f"reward 'fn': {said}.*The response was: '42'"):
        Rewards((Term("fn", call),))(answers())
    dropped = Rewards((Term("fn", call),), on_error="drop")(answers())
    assert all(s.failed and math.isnan(s.value) for s in dropped)
    assert round_metrics([(s.parts, s.why) for s in dropped]) == {"failed": 4.0}


def test_one_failure_of_a_call_by_answer_fails_that_answer_alone() -> None:
    def fn(response):
        return float(response)

    found = Rewards((Term("fn", of(fn)),), on_error="drop")(answers())
    assert [s.failed for s in found] == [False, True, True, True] and found[0].value == 42.0
    assert "ValueError: could not convert string to float: 'it is 41'" in found[1].why


def test_numbers_of_every_kind_are_scores() -> None:
    for given in (1, 1.0, True, np.float32(1), np.int64(1), torch.tensor(1.0), np.array(1.0)):
        assert values(of(lambda response, given=given: given)) == [1.0] * 4
    for rows in (torch.ones(4), np.ones(4), (1.0,) * 4):
        assert values(of(lambda responses, given=rows: given)) == [1.0] * 4


def test_async_functions_are_asked_at_once() -> None:
    """Four answers that wait for each other: asked one after the other they would wait for ever."""

    def waiting():
        met: list[str] = []
        room = asyncio.Event()

        async def fn(response):
            met.append(response)
            if len(met) == 4:
                room.set()
            await room.wait()
            if response == "it is 41":
                raise ValueError("no")
            return len(response)

        return fn

    found = of(waiting(), place="mine.py:fn")(answers())
    assert [s.value for s in found if not s.failed] == [2.0, 9.0, 9.0] and found[1].why == "ValueError: no"

    async def late(response):
        if response == "42":
            await asyncio.Event().wait()
        return 1.0

    assert [s.why for s in of(late, place="mine.py:late", seconds=0.2)(answers())] == [
        "timed out after 0.2 s",
        "",
        "",
        "",
    ]

    async def many(responses):
        return [1.0] * len(responses)

    assert values(of(many, place="mine.py:many")) == [1.0] * 4


def test_trl_functions_are_taken_as_they_are(tmp_path) -> None:
    """Conversations as lists of messages, columns as lists; None says nothing, and is no failure beside another."""
    (tmp_path / "mine.py").write_text(
        "def accuracy(prompts, completions, solution, **kwargs):\n"
        "    assert prompts[0] == [{'role': 'user', 'content': 'what is 6 times 7'}], prompts\n"
        "    return [None if s is None else float(c[0]['content'] == s) for c, s in zip(completions, solution)]\n"
        "async def brief(*, completions, completion_ids, **kwargs):\n"
        "    return [-float(len(ids)) for ids in completion_ids]\n"
        "def plain(prompts, completions): return [len(p + c) for p, c in zip(prompts, completions)]\n"
        "def other(text): return 1.0\n"
    )
    parts = registry.own_parts(str(tmp_path / "mine.py"), "reward")
    assert [n.rpartition(":")[2] for n in parts] == ["accuracy", "brief", "plain"] and all(
        p.scope == "trl" for p in parts.values()
    )
    accuracy, brief = (Call(registry.load(f"{tmp_path}/mine.py:{n}", "reward")) for n in ("accuracy", "brief"))
    assert accuracy.columns == ("solution",) and brief.columns == ()
    given = [*answers(SAID[:2], (0, 0), solution="42"), *answers(SAID[2:], (1, 1))]
    both = Rewards((Term("accuracy", accuracy), Term("brief", brief, 0.5)))(given)
    assert [s.value for s in both] == [1.0 - 1.0, 0.0 - 4.0, -4.5, -4.5]
    assert "accuracy" not in both[2].parts
    texts = Call(registry.load(f"{tmp_path}/mine.py:plain", "reward"), {"text": True})
    assert values(texts, given) == [19.0, 25.0, 26.0, 26.0]
    with pytest.raises(RunFailed, match="reward 'accuracy' has no score for it, and neither has any other"):
        Rewards((Term("accuracy", accuracy),))(given)
    with pytest.raises(UserError, match=r"'other' in .* is not decorated with @reward"):
        registry.load(f"{tmp_path}/mine.py:other", "reward")


def test_deterministic_rewards_are_asked_once() -> None:
    asked = []

    def fn(response):
        asked.append(response)
        return None if response == "it is 41" else float(len(response))

    term = Term("fn", of(fn, deterministic=True))
    first, again = term.scores(answers()), term.scores([*answers(), *answers(["42"], [5])])
    assert (
        [s.value for s in again if not s.failed]
        == [2.0, 9.0, 9.0, 2.0]
        == [s.value for s in first if not s.failed] + [2.0]
    )
    assert asked == [*SAID, "it is 41"], "what failed is asked again, what is known is not"
    assert term.scores(answers(["42"], [0], answer=1))[0].value == 2.0 and asked[-1] == "42", (
        "another row is another case"
    )


def test_rewards_one_before_the_other() -> None:
    """By the first, where it tells two apart by more than `within`; else by the second. A share of the siblings."""
    first = {"a": 1.0, "b": 1.05, "c": 0.0, "d": 1.0}
    second = {"a": 0.0, "b": -1.0, "c": 9.0, "d": 0.0}
    terms = (
        Term("first", of(lambda response: first[response]), within=0.1),
        Term("second", of(lambda response: second[response])),
    )
    found = Rewards(terms, "lexicographic")(answers(list("abcd"), (0, 0, 0, 0)))
    assert [s.value for s in found] == pytest.approx([(1 + 1 + 0.5) / 3, 1 / 3, 0.0, (1 + 1 + 0.5) / 3])
    assert found[0].parts == {"first": 1.0, "second": 0.0}
    assert [s.value for s in Rewards(terms, "lexicographic")(answers(["a", "c"], (0, 1)))] == [0.0, 0.0]


def test_costs_are_weighed_by_their_multiplier() -> None:
    harm = Cost(budget=0.2, rate=0.5, start=2.0)
    terms = (
        Term("good", of(lambda response: float(len(response))), 0.5),
        Term("harm", of(lambda response: float(response == "42")), cost=harm),
    )
    before: list = []
    multiplier = 2.0
    for _ in range(3):
        found = Rewards(terms)(answers(), before)
        wanted = [(0.5 * len(t) - multiplier * (t == "42")) / (1 + multiplier) for t in SAID]
        assert [s.value for s in found] == pytest.approx(wanted)
        assert found[0].parts["multiplier:harm"] == pytest.approx(multiplier)
        multiplier = adv.next_multiplier(multiplier, 0.25 - 0.2, rate=0.5)
        before = [s.parts for s in found]
    with pytest.raises(RunFailed, match="the multiplier of cost 'harm' left all bounds; give it a lower rate"):
        Cost(-1e6, 1.0).after("harm", [{"harm": 0.0, "multiplier:harm": 1.0}])


NUMBERS = {
    "25 - 759 = -734": "-734",
    "the answer is -734.": "-734",
    "1,250 apples": "1250",
    "3/4": "3/4",
    "1.5/2": "3/4",
    "x=.5": "1/2",
    "1e3": "1000",
    "5-3": None,
    "#### 18 apples\nof 20": "18",
    r"2, so \boxed{-3/4} or 7": "-3/4",
    "none": None,
    "": None,
    "1/0": None,
    "9" * 5000: None,
}


@pytest.mark.parametrize("text", NUMBERS, ids=lambda text: text[:20])
def test_the_number_a_text_ends_in(text) -> None:
    found = number(text)
    assert (None if found is None else str(found)) == NUMBERS[text]


def test_the_verifier_is_exact_and_never_guesses() -> None:
    assert values(Call(verifier), answers(answer="42")) == [1.0, 0.0, 0.0, 1.0]
    worst = {"answer": "text", "column": "said", "wrong": -1.0}
    assert values(Call(verifier, worst), answers(said="Forty-Two.")) == [-1.0, -1.0, 1.0, -1.0]
    assert verifier("0.1", {"answer": "1/10"}) == 1.0 and verifier("0.30000000000000004", {"answer": 0.3}) == 0.0
    with pytest.raises(UserError, match="a prompt's row has no 'answer' to compare answers with; its columns: said"):
        Call(verifier)(answers(said="x"))
    with pytest.raises(UserError, match="the right answer 'blue' is no number; set answer: text"):
        Call(verifier)(answers(answer="blue"))


@pytest.mark.parametrize(
    "text, value",
    [
        ("<think>\n6 * 7 is 41? \\boxed{41}\n</think>\n\n42", 1.0),
        ("6 * 7 is 41?</think> 42", 1.0),  # opened in the prompt
        ("<think>42</think> 41", 0.0),
        ("<think>it is 42", 0.0),  # an answer that is never given is wrong, and no failure
        ("42</think>", 0.0),
        ("<think>42</think>41</think>42", 1.0),
    ],
)
def test_what_comes_after_the_thought_is_verified(text: str, value: float) -> None:
    """A number of the thought is no answer."""
    assert verifier(text, {"answer": 42}) == value
    assert verifier(text.replace("42", "yes").replace("41", "no"), {"answer": "yes"}, answer="text") == value


def test_a_program_is_taken_from_behind_the_thought() -> None:
    code = "```python\nprint({})\n```"
    row = {"tests": [["", "42"]]}
    run = registry.load("program", "reward").fn
    assert run(f"<think>{code.format(41)}</think>{code.format(42)}", row) == 1.0
    found = run(f"<think>{code.format(42)}</think>no program", row)
    assert (found.value if isinstance(found, Score) else found) == 0.0


def test_form_and_length() -> None:
    form = Call(registry.load("format", "reward"), {"tags": ["think", "answer"], "partial": 0.1})
    opened = "2 + 2</think> <answer>4</answer>"  # a policy's turn is whole; of a text alone nobody knows
    headless = [Response(ASKED, opened, whole=whole) for whole in (True, False)]
    assert [score.value for score in form(headless)] == [pytest.approx(0.1), 1.0]
    assert form([Response(ASKED, "<answer>4</answer>")])[0].value == pytest.approx(0.1)
    texts = {
        "<think>a</think><answer>b</answer>": 1.0,
        " <think>a\nb</think>\n<answer></answer> ": 1.0,
        "so: <think>a</think><answer>b</answer>": 0.2,
        "<answer>b</answer><think>a</think>": 0.2,
        "<think>a</think><think>a</think><answer>b</answer>": 0.1,
        "</think><think><answer>b": 0.0,
    }
    assert values(form, answers(list(texts), range(len(texts)))) == pytest.approx(list(texts.values()))
    length = Call(registry.load("length", "reward"), {"per_token": -0.5, "per_character": 2.0})
    assert values(length) == [1.5 * len(t) for t in SAID]
    with pytest.raises(UserError, match=r"reward 'regex': '\(' is no regular expression"):
        Call(registry.load("regex", "reward"), {"pattern": "("})(answers())


def test_the_decorator_says_what_a_recipe_may_set(tmp_path) -> None:
    text = (
        "from truing.registry import reward\nfrom truing.records import Positive\n"
        "@reward(scope='group')\nasync def unlike(responses, *, power: Positive = 1.0):\n    '''Spread.'''\n"
        "    return [power] * len(responses)\n"
    )
    (tmp_path / "mine.py").write_text(text)
    part = registry.resolve(f"{tmp_path}/mine.py:unlike", "reward")
    assert (part.scope, part.needs, part.options[0].name) == ("group", ("responses",), "power")
    loaded = registry.load(f"{tmp_path}/mine.py:unlike", "reward")
    assert values(Call(loaded, {"power": 3.0})) == [3.0] * 4
    assert isinstance(reward(scope="response")(lambda response: 1.0), RewardFunction)


def test_a_reward_of_negative_weight_comes_before_others_with_its_sign() -> None:
    """Where rewards go one before the other a weight says only whether more is better. What failed beats nobody."""
    short = Term("short", of(lambda response: None if response == "?" else float(len(response))), weight=-2.0)
    found = Rewards((short,), "lexicographic", "drop")(answers(["a", "?", "bb", "ccc"], (0, 0, 0, 0)))
    assert [s.value for s in found if not s.failed] == [1.0, 0.5, 0.0] and found[1].failed


def test_a_multiplier_follows_the_answers_that_a_cost_was_known_of() -> None:
    """Those that failed have the multiplier alone; a round of nothing else leaves it as it was."""
    cost, failed = Cost(budget=0.2, rate=0.5, start=2.0), {"multiplier:harm": 3.0}
    assert (cost.after("harm", []), cost.after("harm", [failed])) == (2.0, 3.0)
    told = [failed, {"harm": 0.7, **failed}]
    assert cost.after("harm", told) == adv.next_multiplier(3.0, 0.7 - 0.2, rate=0.5) > 3.0


def test_a_reward_may_be_called_like_what_is_told_of_others() -> None:
    rows = [
        ({"late_days": 0.5, "multiplier_effect": 2.0, "timed_out:x": 1.0, "multiplier:x": 3.0}, ""),
        ({"x": 1.0}, ""),
    ]
    assert round_metrics(rows) == {
        "reward_late_days": 0.5,
        "reward_multiplier_effect": 2.0,
        "timed_out_x": 1.0,
        "multiplier_x": 3.0,
        "reward_x": 1.0,
        "scored_by_late_days": 1.0,
        "scored_by_multiplier_effect": 1.0,
        "scored_by_x": 1.0,
        "failed": 0.0,
    }


def test_a_cost_that_says_nothing_of_an_answer_has_failed() -> None:
    """A reward that is silent is left out of the sum; a multiplier cannot follow what is not said."""
    terms = (
        Term("good", of(lambda response: 1.0)),
        Term("harm", of(lambda completions, **_: [None, 0.0, 0.0, 0.0], "trl"), cost=Cost(0.2, start=1.0)),
    )
    found = Rewards(terms, on_error="drop")(answers())
    assert [s.failed for s in found] == [True, False, False, False]
    assert found[0].why == "reward 'harm': has no score for it" and "harm" not in found[0].parts
