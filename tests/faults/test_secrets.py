"""A key planted anywhere reaches no report, log, error, card, round or terminal; the user's own rows stay as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as parquet
import pytest

from truing import cli, seals
from truing.disk import write_exact, write_json, write_text
from truing.errors import DataError, RunFailed, UserError, cleaned, holds_key, redacted, visible

A = "abcdefghijklmnopqrstuvwxyz0123"
SHAPES = {
    "Hugging Face": f"hf_{A}",
    "OpenAI": f"sk-proj-{A}",
    "Anthropic": f"sk-ant-api03-{A}_{A}-AA",
    "GitHub": f"ghp_{A}012345",
    "GitHub, fine": f"github_pat_11ABC_{A}",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "Slack": "xoxb-1234567890-1234567890-abcdefghij",
    "Google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "GitLab": "glpat-abcdefghij0123456789",
    "Stripe": "sk_" + "live_" + A,
    "a JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "a PEM": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc/def+ghi==\n-----END RSA PRIVATE KEY-----",
    "an address": "https://me:pass-word@host/x",
}
NAMED = {
    "a bearer": ("Authorization: Bearer ", "opaque.token/with+odd=chars"),
    "basic": ("authorization: Basic ", "dXNlcjpwYXNzd29yZA=="),
    "a query": ("https://host/x?a=1&key=", "Zm9vYmFyYmF6"),
    "a header": ("x-api-key: ", "0123456789abcdef"),
    "JSON": ('{"api_key": "', "0123456789abcdef"),
    "an assignment": ("password=", "correct-horse-battery"),
}


def secret_of(text: str) -> str:
    """The part of a planted text that nobody may see."""
    return "pass-word" if "pass-word" in text else text.split("\n")[1] if "\n" in text else text


@pytest.mark.parametrize("vendor", SHAPES)
def test_the_keys_of_the_common_vendors(vendor) -> None:
    text = f"said: {SHAPES[vendor]}, and more"
    assert secret_of(SHAPES[vendor]) not in redacted(text) and holds_key(text)
    assert redacted(text).startswith("said: ") and redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("kind", NAMED)
def test_what_stands_behind_the_name_of_a_secret(kind) -> None:
    before, value = NAMED[kind]
    assert redacted(f"{before}{value} end") == f"{before}⟨key⟩ end"
    assert redacted(redacted(before + value)) == redacted(before + value)


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn/pairs and task-force-of-many-words-here",
        "the password: none, tokens: 12345678901234567890, key=value, bearer of bad news",
        "sha256 9b0d3c1f22aa9b0d3c1f22aa9b0d3c1f22aa9b0d3c1f22aa9b0d3c1f22aa9b0d",
        "https://host:8080/path?step=12 and me@host.org",
        "do_sample, eos_token_id: 2, chosen_log_ratio 0.12345678",
    ],
)
def test_what_is_no_key_stays(text) -> None:
    assert redacted(text) == text and not holds_key(text)


@pytest.mark.parametrize(
    "name", ["MY_SERVICE_PASSWORD", "OPENAI_API_KEY", "db_secret", "CI_TOKEN_2", "AUTH_CREDENTIALS"]
)
def test_a_value_of_the_environment_in_any_form(monkeypatch, name) -> None:
    value = 'a"b <c>&d/\né'
    monkeypatch.setenv(name, value)
    for form in (value, json.dumps(value), repr(value), json.dumps({"x": value}, ensure_ascii=False)):
        assert redacted(f"said {form}").count(f"⟨{name}⟩") == 1
    assert redacted("a%22b%20%3Cc%3E%26d%2F%0A%C3%A9") == f"⟨{name}⟩"
    assert redacted("a&quot;b &lt;c&gt;&amp;d/\né") == f"⟨{name}⟩"


@pytest.mark.parametrize(
    ("name", "value"), [("MY_KEY", "direct"), ("MY_TOKEN", "1"), ("PWD", "/some/where"), ("X", "x" * 9)]
)
def test_common_words_and_other_variables_stay(monkeypatch, name, value) -> None:
    monkeypatch.setenv(name, value)
    assert redacted(f"stage {value}") == f"stage {value}"


def test_every_error_of_ours_is_clean_from_the_start() -> None:
    key = SHAPES["OpenAI"]
    for problem in (UserError(f"no {key}"), RunFailed(key), DataError(f"rows {key}", f"has {key}", f"take {key} out")):
        assert key not in str(problem) and key not in repr(problem)


def test_words_are_cleaned_and_rows_are_not(tmp_path: Path) -> None:
    key = SHAPES["OpenAI"]
    assert key not in write_text(tmp_path / "a", f"x {key}").read_text()
    assert write_exact(tmp_path / "b", f"x {key}").read_text() == f"x {key}"
    write_json(tmp_path / "c", {key: [key, {"why": f"x {key}", "n": 1.5}]})
    assert key not in (tmp_path / "c").read_text() and cleaned(1.5) == 1.5
    body = seals.sealed({"notes": [f"x {key}", ("y",)]})
    write_json(tmp_path / "d", body)
    assert seals.fits(json.loads((tmp_path / "d").read_text())) and key not in (tmp_path / "d").read_text()


REWARD = """
import sys
from truing.registry import reward

@reward("response")
def mine(response, *, hint: str = ""):
    print("asking with {key}")
    print("asking with {key}", file=sys.stderr)
    {body}
"""
MESSAGE = '401: header x-api-key: {header}, body {{"key": "{key}"}}, {word}'


TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")


def nowhere(place: Any, secrets: dict[str, str]) -> None:
    """No secret in what was printed, nor in any file of the run but the user's own rows and templates."""
    for path in (p for p in place.out.rglob("*") if p.is_file()):
        raw = path.read_bytes()
        if path.suffix == ".parquet":
            table = parquet.read_table(path).to_pylist()
            own = ("prompt", "response", "ids", "prompt_ids")
            raw = json.dumps([{k: v for k, v in row.items() if k not in own} for row in table], default=str).encode()
        for where, secret in secrets.items():
            assert secret.encode() not in raw or path.name in TEMPLATES, (where, path)
    for where, secret in secrets.items():
        assert secret not in place.said, where


def planted(place, good_rows, monkeypatch, body: str) -> dict[str, str]:
    """Keys in the environment, a reward's message and print, an argument, rows, a template, and a file's name."""
    keys = {
        "environment": "correct horse battery",
        "reward": f"sk-ant-{A}",
        "server's header": "opaque-0123456789",
        "data row": f"hf_row{A}",
        "template": f"ghp_{A}template",
        "file name": f"glpat-{A}name",
    }
    monkeypatch.setenv("MY_SERVICE_PASSWORD", keys["environment"])
    text = MESSAGE.format(key=keys["reward"], header=keys["server's header"], word=keys["environment"])
    place.write(REWARD.format(key=keys["reward"], body=body.format(text=repr(text))), "mine.py")
    rows = [row | {"prompt": f"{row['prompt']} {keys['data row']}"} for row in good_rows()]
    place.write(rows, f"rows-{keys['file name']}.jsonl")
    template = place.folder / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + "{# " + keys["template"] + " #}")
    return keys


@pytest.mark.parametrize(
    ("on_error", "late", "code"), [("stop", "", 3), ("drop", "", 0), ("drop", ", timeout_score: 0", 0)]
)
def test_a_run_whose_reward_fails(place, good_rows, monkeypatch, on_error, late, code) -> None:
    """What it raises is kept in the rounds where failures are dropped; with `timeout_score` it is asked in another process."""
    body = "if len(response) % 2:\n        raise ConnectionError({text})\n    return float(len(response))"
    keys = planted(place, good_rows, monkeypatch, body)
    next(place.folder.glob("rows-*")).rename(place.folder / "rows-X.jsonl")
    stage = f"learn: {{do: reinforce, model: model, prompts: rows-X.jsonl, rewards: [{{mine.py:mine: {{weight: 1{late}}}}}], "
    assert place.run(stage + f"group_size: 8, steps: 1, max_new_tokens: 8, on_error: {on_error}}}") == code, place.said
    nowhere(place, keys)
    assert place("report", "out") == 0
    nowhere(place, keys)
    rounds = [row for file in place.out.rglob("round-*.parquet") for row in parquet.read_table(file).to_pylist()]
    told = [row["why"] for row in rounds if row.get("why")] if code == 0 else [place.read("manifest.json")["reason"]]
    assert told and all("⟨key⟩" in why and "⟨MY_SERVICE_PASSWORD⟩" in why for why in told)


def test_a_run_that_ends_well(place, good_rows, monkeypatch) -> None:
    keys = planted(place, good_rows, monkeypatch, "return {text} and float(len(response))")
    name = next(place.folder.glob("rows-*")).name
    before = (place.folder / "model" / "chat_template.jinja").read_text()
    (place.folder / name).rename(place.folder / "rows-X.jsonl")
    assert place.run("warm: {do: sft, model: model, data: rows-X.jsonl, steps: 1}") == 0, place.said
    nowhere(place, keys)
    assert keys["template"] in (place.out / "warm" / "model" / "chat_template.jinja").read_text() and before
    (place.folder / "rows-X.jsonl").rename(place.folder / name)
    assert place("split", name, "--out", "parts") == 0
    assert keys["file name"] not in place.said
    assert keys["data row"] in (place.folder / "parts" / "train.jsonl").read_text(), "the user's rows are as they were"


def test_a_traceback_an_argument_and_a_server(place, good_rows, monkeypatch) -> None:
    key = SHAPES["GitHub"]

    def refuse(*_, **__):
        raise ConnectionError(f"401 for https://host/x?token={A}, Authorization: Bearer {A}, {key}")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=refuse))
    assert place("split", "me/pairs", "--out", "parts") == 2
    assert A not in place.said and key not in place.said
    assert place("split", f"{key}.jsonl", "--out", "parts") == 2 and key not in place.said
    assert place("check", f"{key}.yaml") == 2 and key not in place.said
    assert place("list", "--from", f"{key}.py") == 2 and key not in place.said


def test_a_traceback_of_ours_holds_no_key(monkeypatch, capsys) -> None:
    key = SHAPES["OpenAI"]

    def broken(**_):
        raise ZeroDivisionError(f"with {key}")

    monkeypatch.setattr(cli.typer.main, "get_command", lambda _: broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert ended.value.code == 3 and "Traceback" in printed.err and key not in printed.out + printed.err


def test_what_a_terminal_would_act_on_is_shown(place, good_rows) -> None:
    """An escape, a carriage return and a line break in a file's name, in `split` and `check`; and in `say` itself."""
    name = "a\x1b[2J\rb\nship.jsonl"
    place.write(good_rows(), name)
    assert place("split", name, "--out", "parts") == 0
    assert "a⟨U+001B⟩[2J⟨U+000D⟩b⟨U+000A⟩ship.jsonl: 8 rows read" in place.said
    recipe = place.write((place.folder / place.recipe("data: {do: split, data: model}")).read_text(), "r\x1b\n.yaml")
    place("check", recipe.name)
    assert "\x1b" not in place.said
    assert visible("a\r\nb\rc") == "a\r\nb⟨U+000D⟩c"


def test_a_panic_in_rust_is_no_hold(monkeypatch, capsys) -> None:
    """It is no Exception, and Python would end with 1, which is the word for a model that may not ship."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def broken(**_):
        raise panic("index out of bounds")

    monkeypatch.setattr(cli.typer.main, "get_command", lambda _: broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3 and "index out of bounds" in capsys.readouterr().err


def test_a_title_with_a_secret_in_it_is_run_twice(place, good_rows, monkeypatch) -> None:
    """A replacement that was read again broke the seal of the manifest, and the second run was refused."""
    monkeypatch.setenv("API_KEY_NAME", "OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "opaque0123456789abcdef")
    place.write(good_rows())
    recipe = place.folder / place.recipe("data: {do: split, data: rows.jsonl}")
    rest = [line for line in recipe.read_text().splitlines(keepends=True) if not line.startswith("title:")]
    recipe.write_text("title: of opaque0123456789abcdef and password=hunter2\n" + "".join(rest))
    for _ in range(2):
        assert place("run", recipe.name, "--out", place.out) == 0, place.said
    nowhere(place, {"title": "opaque0123456789abcdef", "password": "hunter2"})
    assert place.read("manifest.json")["title"] == "of ⟨OPENAI_API_KEY⟩ and password=⟨key⟩"
