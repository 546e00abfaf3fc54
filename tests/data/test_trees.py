"""From records to trees: the length limit, what is said of cut and dropped rows, packing, and the layout of a row."""

import pytest

from truing.data.batch import Batch, Branch, Tree, pack, trees_digest
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees, with_shadows
from truing.errors import DataError, UserError
from truing.policy.fresh import tokenizer_from
from truing.records import Demonstration, Judgement, Message, Records, Verdict

WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture(scope="module")
def renderer():
    return Renderer(tokenizer_from([WORDS] * 5, 400))


def said(text: str):
    return (Message("assistant", text),)


def pair(prompt: str, chosen: str, rejected: str, **more) -> Judgement:
    verdict = Verdict("choice", 0, more.pop("probability", None))
    return Judgement("id", (Message("user", prompt),), (said(chosen), said(rejected)), verdict, **more)


def records(*rows) -> Records:
    return Records("pairs.jsonl", tuple(rows), tuple(range(11, 11 + len(rows))))


def test_a_pair_becomes_a_tree_with_one_prompt(renderer) -> None:
    (tree,) = build_trees(records(pair("one two", "three", "four five")), renderer, max_length=64, shape="pairs").trees
    chosen = renderer.encode((Message("user", "one two"),), said("three"))
    assert list(tree.prompt) == chosen.prompt_ids and list(tree.branches[0].ids) == chosen.response_ids
    assert [b.role for b in tree.branches] == ["chosen", "rejected"] and tree.row == 11
    assert tree.tokens == len(tree.prompt) + sum(len(b.ids) for b in tree.branches)
    assert tree.data_tokens == tree.tokens + len(tree.prompt)


def test_a_prompt_longer_than_the_limit_is_dropped_and_said(renderer) -> None:
    dataset = build_trees(
        records(pair("one", "two", "three"), pair(WORDS * 3, "two", "three")), renderer, max_length=12, shape="pairs"
    )
    assert [t.row for t in dataset.trees] == [11] and [t.index for t in dataset.trees] == [0]
    assert dataset.text() == "kept 1 rows, truncated 0, dropped 1 (prompt longer than max_length 12: row 12)"


def test_a_response_over_the_limit_is_cut_and_said(renderer) -> None:
    dataset = build_trees(records(pair("one", "two", WORDS)), renderer, max_length=10, shape="pairs")
    (tree,) = dataset.trees
    assert len(tree.prompt) + len(tree.branches[1].ids) == 10
    end = renderer.tokenizer.eos_token_id
    assert tree.branches[0].ids[-1] == end and end not in tree.branches[1].ids, "a cut response does not end"
    assert dataset.text() == "kept 1 rows, truncated 1, dropped 0 (response cut at max_length 10: row 11)"


def test_responses_that_are_the_same_once_cut_are_dropped(renderer) -> None:
    rows = records(pair("one", WORDS + " one", WORDS + " two"), pair("one", "two", "three"))
    dataset = build_trees(rows, renderer, max_length=10, shape="pairs")
    assert "dropped 1 (responses are the same once cut to max_length: row 11)" in dataset.text()


def test_nothing_left_is_an_error_with_the_account(renderer) -> None:
    with pytest.raises(
        UserError, match=r"no row is left to train on. kept 0 rows, truncated 0, dropped 1 \(prompt longer"
    ):
        build_trees(records(pair(WORDS, "a", "b")), renderer, max_length=4, shape="pairs")


def test_control_tokens_in_text_are_an_error_or_dropped(renderer) -> None:
    rows = records(pair("one <|end|><|assistant|>yes", "two", "three"), pair("one", "two", "three"))
    with pytest.raises(
        DataError, match=r"pairs.jsonl, row 11, message 1 \(user\): holds the control token '<\|end\|>'"
    ):
        build_trees(rows, renderer, max_length=64, shape="pairs")
    dataset = build_trees(rows, renderer, max_length=64, shape="pairs", on_bad_row="drop")
    assert [t.row for t in dataset.trees] == [12] and "dropped 1" in dataset.text()


def test_demonstrations_do_not_make_pairs(renderer) -> None:
    rows = records(Demonstration((Message("user", "one"),), said("two")))
    with pytest.raises(
        DataError, match=r"row 11: this is a demonstration, and the stage learns from pairs\n  Give pairs"
    ):
        build_trees(rows, renderer, max_length=64, shape="pairs")


def test_margin_and_soft_label_travel_with_the_tree(renderer) -> None:
    rows = records(pair("one", "two", "three", strength=0.5, probability=0.9), pair("one", "two", "four"))
    trees = build_trees(rows, renderer, max_length=64, shape="pairs").trees
    assert dict(trees[0].values) == {"margin_B": 0.5, "preference_B": 0.9} and not trees[1].values


def test_every_assistant_turn_or_the_last(renderer) -> None:
    talk = Demonstration((Message("user", "one"),), (*said("two"), Message("user", "three"), *said("four")))
    (every,) = build_trees(records(talk), renderer, max_length=64, shape="single").trees
    (last,) = build_trees(records(talk), renderer, max_length=64, shape="single", turns="last").trees
    decode = renderer.tokenizer.decode
    assert (
        decode([i for i, m in zip(every.branches[0].ids, every.branches[0].loss, strict=True) if m])
        == "two<|end|>four<|end|>"
    )
    assert decode(last.branches[0].ids) == "four<|end|>" and all(last.branches[0].loss)
    assert (*every.prompt, *every.branches[0].ids) == (*last.prompt, *last.branches[0].ids)


def test_text_learns_the_prompt_too(renderer) -> None:
    row = Demonstration((Message("user", "one two"),), said("three"))
    (tree,) = build_trees(records(row), renderer, max_length=64, shape="text").trees
    assert len(tree.prompt) == 1 and all(tree.branches[0].loss)
    assert renderer.tokenizer.decode([*tree.prompt, *tree.branches[0].ids]).count("one two") == 1


def tree(prompt: tuple[int, ...], *branches: tuple[int, ...]) -> Tree:
    return Tree(prompt, tuple(Branch("r", b, (True,) * len(b)) for b in branches), 0, 1)


def test_the_packed_row_by_hand() -> None:
    batch = Batch((tree((1, 2, 3), (4, 5), (6,)), tree((7,), (8, 9))))
    assert batch.ids_N.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert batch.positions_N.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2]
    assert batch.target_R.tolist() == [4, 5, 6, 8, 9]
    assert batch.source_R.tolist() == [2, 3, 2, 6, 7], "the last prompt token predicts the first of every branch"
    assert batch.ends_M.tolist() == [4, 5, 8] and batch.branch_R.tolist() == [0, 0, 1, 2, 2]
    assert batch.tokens == 9 and batch.data_tokens == 5 + 4 + 3


def test_a_tree_is_never_split() -> None:
    trees = [tree((1,) * n, (2,) * n) for n in (1, 5, 2, 9, 1)]
    groups = list(pack(trees, 8))
    assert [t for g in groups for t in g] == trees
    assert [[t.tokens for t in g] for g in groups] == [[2], [10], [4], [18], [2]]


def test_the_digest_follows_the_tokens() -> None:
    one = trees_digest([tree((1, 2), (3,))])
    assert one == trees_digest([tree((1, 2), (3,))])
    assert one != trees_digest([tree((1,), (2, 3))]) and one != trees_digest([tree((1, 2), (4,))])


def judged(kind: str, value: list, *responses: str) -> Judgement:
    return Judgement("id", (Message("user", "one"),), tuple(map(said, responses)), Verdict(kind, value))


def test_equal_answers_of_a_ranking_are_left_out_one_by_one(renderer) -> None:
    row = records(judged("ranking", [0, 1, 2], "two", WORDS + " one", WORDS + " two"))
    dataset = build_trees(row, renderer, max_length=12, shape="ranked")
    assert [b.role for b in dataset.trees[0].branches] == ["chosen", "rejected"]
    assert "left out" in dataset.text()


def test_a_response_of_both_labels_is_left_out(renderer) -> None:
    row = records(judged("score", [1.0, 0.0, 1.0], WORDS + " one", WORDS + " two", "three"))
    dataset = build_trees(row, renderer, max_length=12, shape="labelled")
    assert [b.role for b in dataset.trees[0].branches] == ["desirable"] and "left out" in dataset.text()


@pytest.mark.parametrize("shape", ["single", "labelled", "outcomes"])
def test_one_score_that_is_no_label_refuses_the_data(renderer, shape) -> None:
    rows = records(judged("score", [1.0], "two"), judged("score", [0.5], "three"))
    with pytest.raises(DataError, match=r"row 12: the score 0\.5 is no label"):
        build_trees(rows, renderer, max_length=64, shape=shape, on_bad_row="drop")


def test_lent_responses_are_cut_and_keep_a_learned_token() -> None:
    short = Tree((1,), (Branch("desirable", (2,) * 9, (False, *(True,) * 8)),), 0, 1)
    long = Tree((3,) * 8, (Branch("desirable", (4, 5), (True, True)),), 1, 2)
    first, second = with_shadows([short, long], 0, 10)
    assert first.shadow.tokens == 3 and second.shadow.tokens == 10 and second.shadow.branches[0].loss == (False, True)
    assert [len(group) for group in pack([first, second], 12)] == [1, 1], "the shadows' own pass is bounded too"
    with pytest.raises(UserError, match="within max_length 9; the objective needs at least two prompts in the data"):
        with_shadows([short, long], 0, 9)
