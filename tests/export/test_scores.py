"""A reward model gives elsewhere the scores that it gives here, whatever its chat template writes behind an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from template_forms import TEMPLATES, TEXTS, base
from truing.commands import model_commands
from truing.data.formats import loading
from truing.data.rendering.render import Renderer
from truing.data.rendering.whole_conversation import WholeConversation
from truing.data.trees import build_trees
from truing.policy import heads
from truing.policy.load import load
from truing.records import Message
from truing.rewards.scoring import RewardModel

LAST = {  # what stands last in a conversation as the template writes it
    "chatml": "<|im_end|>\n",
    "gemma": "<end_of_turn>\n",
    "zephyr": "</s>\n",
    "llama3": "<|eot_id|>",
    "phi3": "<|end|>\n<|endoftext|>",
    "mistral": "</s>",
    "plain": ".\n\n",
    "thinking": "<|im_end|>\n",
    "mute": "<|im_end|>\n",
}


def asked(i: int) -> list[dict[str, str]]:
    """A prompt of one, three or five turns."""
    said = [text.strip() for text in TEXTS[i : i + 2 * (i % 3) + 1]]
    return [{"role": "assistant" if k % 2 else "user", "content": text} for k, text in enumerate(said)]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


ROWS = [
    {"prompt": asked(i), "chosen": answer(f"{word} the desk grants {i}."), "rejected": answer(f"no refund {i}.")}
    for i, word in enumerate(["yes", "maybe", "please", "ticket"] * 10)
]
PAIRS = [[row["prompt"] + row[side] for side in ("chosen", "rejected")] for row in ROWS]
CONVERSATIONS = [conversation for pair in PAIRS for conversation in pair]


@pytest.fixture(scope="module", params=sorted(TEMPLATES))
def served(request, tmp_path_factory):
    """A form, the folder of a reward model of it, the scores of 40 pairs here, and the model in plain transformers."""
    place = tmp_path_factory.mktemp(request.param)
    heads.save(heads.fresh_reward(str(base(request.param, place / "base")), seed=5), place / "rm")
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model_commands.score(str(place / "rm"), str(place / "rows.jsonl"), place / "scores.jsonl")
    lines = [json.loads(line) for line in (place / "scores.jsonl").read_text().splitlines()]
    ours = [line[f"{side}_reward"] for line in lines for side in ("chosen", "rejected")]
    model = AutoModelForSequenceClassification.from_pretrained(place / "rm").eval()
    return request.param, place / "rm", ours, model, AutoTokenizer.from_pretrained(place / "rm")


def test_a_conversation_has_its_score_in_plain_transformers(served) -> None:
    """An instance of: a score read at another token than the one that a server reads (the newline behind the end)."""
    form, _, ours, model, tokenizer = served
    with torch.no_grad():
        for conversation, score in zip(CONVERSATIONS, ours, strict=True):
            ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)["input_ids"]
            assert model(ids).logits.item() == pytest.approx(score, abs=1e-4)
            assert tokenizer.decode(ids[0]).endswith(LAST[form])
    assert torch.tensor(ours).std() > 0.1, "scores that differ"


def test_as_text_and_through_a_pipeline(served) -> None:
    _, folder, ours, _, tokenizer = served
    texts = [tokenizer.apply_chat_template(c, tokenize=False) for c in CONVERSATIONS]
    classify = pipeline("text-classification", model=str(folder), function_to_apply="none")
    found = [row["score"] for row in classify(texts, add_special_tokens=False, batch_size=1)]
    assert found == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_in_padded_batches(served, side) -> None:
    _, _, ours, model, tokenizer = served
    tokenizer.padding_side = side
    batch = tokenizer.apply_chat_template(CONVERSATIONS[:12], padding=True, return_tensors="pt", return_dict=True)
    assert batch["attention_mask"].min() == 0, "some rows are padded"
    with torch.no_grad():
        assert model(**batch).logits.squeeze(1).tolist() == pytest.approx(ours[:12], abs=1e-4)


def test_here_by_every_way_that_reads_a_reward(served, tmp_path) -> None:
    """Training, a reward of a policy's answers and `score` read the same tokens."""
    _, folder, ours, _, tokenizer = served
    policy = load(str(folder), "reward")
    prompts = [tuple(Message(**m) for m in row["prompt"]) for row in ROWS for _ in "ab"]
    words = [row[side][0]["content"] for row in ROWS for side in ("chosen", "rejected")]
    assert [s.value for s in RewardModel(policy)(prompts, words)] == pytest.approx(ours, abs=1e-4)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    records = loading.load(str(tmp_path / "rows.jsonl"))
    trees = build_trees(records, heads.renderer(policy), max_length=512, shape="pairs").trees
    read = [[*tree.prompt, *branch.ids] for tree in trees for branch in tree.branches]
    assert read == [tokenizer.apply_chat_template(c, return_dict=False) for c in CONVERSATIONS]


def test_a_model_from_elsewhere_is_read_where_it_was_fitted(tmp_path) -> None:
    """Its own template, as its folder has it: no BOS that the tokenizer would add, no end that the template lacks."""
    folder = base("zephyr", tmp_path / "base")
    made = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    made.config.pad_token_id = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<unused>")
    made.save_pretrained(tmp_path / "rm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path / "rm")
    model = RewardModel(load(str(tmp_path / "rm"), "reward"))
    ids = tokenizer.apply_chat_template(CONVERSATIONS[0], return_tensors="pt", return_dict=True)["input_ids"]
    assert ids[0, 0] != tokenizer.bos_token_id
    with torch.no_grad():
        wanted = made.eval()(ids).logits.item()
    prompt = tuple(Message(**m) for m in ROWS[0]["prompt"])
    assert model([prompt], [ROWS[0]["chosen"][0]["content"]])[0].value == pytest.approx(wanted, abs=1e-4)


def test_padding_that_stands_last_in_a_conversation_gets_a_token_of_its_own(tmp_path) -> None:
    """Plain transformers reads the last token that is no padding: a template may write the padding token there."""
    folder = base("chatml", tmp_path / "base")
    template = (folder / "chat_template.jinja").read_text().replace("{% endif %}", "{% else %}<|endoftext|>{% endif %}")
    (folder / "chat_template.jinja").write_text(template)
    policy = heads.fresh_reward(str(folder), seed=5)
    assert policy.tokenizer.pad_token == "<|pad|>" and policy.tokenizer.eos_token != "<|endoftext|>"
    heads.save(policy, tmp_path / "rm")
    plain, made = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval(), policy.tokenizer
    ids = made.apply_chat_template(CONVERSATIONS[:2], padding=True, return_tensors="pt", return_dict=True)
    prompt, words = (
        tuple(Message(**m) for m in ROWS[0]["prompt"]),
        [ROWS[0][k][0]["content"] for k in ("chosen", "rejected")],
    )
    with torch.no_grad():
        found = plain(**ids).logits.squeeze(1).tolist()
    assert [s.value for s in RewardModel(policy)([prompt] * 2, words)] == pytest.approx(found, abs=1e-4)


def test_an_adapter_s_scores_too(tmp_path) -> None:
    from truing.policy import adapters
    from truing.settings import Lora

    policy = heads.fresh_reward(str(base("gemma", tmp_path / "base")), seed=5, whole=False)
    adapters.put_on(policy, Lora(lora_rank=2), seed=1)
    heads.save(policy, tmp_path / "rm")
    prompt, words = (Message("user", "who?"),), "the desk."
    ours = RewardModel(policy)([prompt], [words])[0].value
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm", num_labels=1).eval()
    conversation = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": words}]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rm")
    ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        assert plain(ids).logits.item() == pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize("form", sorted(TEMPLATES))
def test_what_is_learned_in_a_conversation_of_several_turns(form, tmp_path) -> None:
    """Words and end tokens of the assistant, nothing between them, whatever stands behind the last end token."""
    tokenizer = load(str(base(form, tmp_path / "base"))).tokenizer
    said = (Message("assistant", "yes."), Message("user", "who?"), Message("assistant", "the desk."))
    whole, alone = WholeConversation(tokenizer), Renderer(tokenizer)
    r = whole.encode((Message("user", "when?"),), said)
    learned = [i for i, flag in zip(r.response_ids, r.loss_mask, strict=True) if flag]
    end = "" if form == "plain" else tokenizer.convert_ids_to_tokens(alone.end_id)
    blank = " " if form == "mistral" else ""  # which belongs to the word's first token
    assert tokenizer.decode(learned) == f"{blank}yes.{end}{blank}the desk.{end}"


def test_outcomes_are_taught_where_the_score_is_read(tmp_path) -> None:
    """An outcome's label stands at every learned token, and at the newline where the model is read."""
    policy = heads.fresh_reward(str(base("chatml", tmp_path / "base")), seed=5)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "who?", "response": "the desk.", "score": 1}) + "\n")
    records = loading.load(str(tmp_path / "rows.jsonl"))
    (branch,) = build_trees(records, heads.renderer(policy), max_length=99, shape="outcomes").trees[0].branches
    assert [token for token, _ in branch.steps] == list(range(len(branch.ids))) and not branch.loss[-1]
    assert policy.tokenizer.decode(branch.ids) == "the desk.<|im_end|>\n"


def test_siblings_share_what_their_tokens_share() -> None:
    """Where a template's text runs into an answer's first letters, the tree's prompt ends before the joined token."""
    from truing.data.rendering.render import Rendered
    from truing.data.trees import shared_prompt

    prompt, rest = shared_prompt([Rendered([1, 2, 3], [4], [True]), Rendered([1, 2, 9, 9], [5], [True])])
    assert prompt == (1, 2) and [r.response_ids for r in rest] == [[3, 4], [9, 9, 5]]
    assert [r.loss_mask for r in rest] == [[False, True], [False, False, True]]


def folder_of(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_only_safetensors_and_text_are_written(served) -> None:
    _, folder, *_ = served
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert folder_of(folder) == wanted


def rows_scored(model: Path, rows: list[dict], folder: Path) -> list[dict]:
    (folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model_commands.score(str(model), str(folder / "some.jsonl"), folder / "some.out")
    return [json.loads(line) for line in (folder / "some.out").read_text().splitlines()]


def test_marks_of_learning_do_not_change_what_is_scored(tmp_path, capsys) -> None:
    """A reward model and a language model read the whole conversation, and what is odd in its rows is said."""
    folder = base("chatml", tmp_path / "base")
    heads.save(heads.fresh_reward(str(folder), seed=5), tmp_path / "rm")
    talk = asked(1) + answer("yes") + [{"role": "user", "content": "sure?"}, *answer("no.")]
    marked = [*talk[:-1], talk[-1] | {"weight": 0}]
    for model in (tmp_path / "rm", folder):
        whole, same = rows_scored(model, [{"messages": talk}, {"messages": marked}], tmp_path)
        assert whole == {
            name: pytest.approx(value, abs=1e-4) for name, value in same.items()
        }  # rounding (seen under SSE)
        first = rows_scored(model, [{"messages": talk[:-2]}], tmp_path)
        assert first != [whole]
    assert "kept 1: duplicate of an earlier row (row 2)" in capsys.readouterr().err
    short = [{"messages": [*talk, {"role": "user", "content": "ok"}]}]
    assert rows_scored(tmp_path / "rm", short, tmp_path) == rows_scored(tmp_path / "rm", [{"messages": talk}], tmp_path)
    assert "truncated 1: messages ends with role 'user', which nothing answers" in capsys.readouterr().err


def test_responses_that_read_alike_are_scored_alike(tmp_path) -> None:
    """Two thoughts that the template takes out before one answer, as a pair and among several."""
    folder = base("chatml", tmp_path / "base")
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    )
    heads.save(heads.fresh_reward(str(folder), seed=5), tmp_path / "rm")
    (tmp_path / "rm" / "chat_template.jinja").write_text(template)
    one, two = ("<think>a</think>yes", "<think>b</think>yes")
    [pair] = rows_scored(tmp_path / "rm", [{"prompt": "the desk", "chosen": one, "rejected": two}], tmp_path)
    assert pair["chosen_reward"] == pytest.approx(pair["rejected_reward"], abs=1e-4)
    several = {"prompt": "the desk", "responses": [one, "no", two], "scores": [1, 2, 3]}
    [row] = rows_scored(tmp_path / "rm", [several], tmp_path)
    first, _, last = row["rewards"]  # read at different places of one row, so alike but for rounding (seen under AVX2)
    assert [first, last] == pytest.approx([pair["chosen_reward"]] * 2, abs=1e-4)
