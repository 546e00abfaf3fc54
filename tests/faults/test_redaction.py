"""Which texts hold a secret, in whatever form, and which hold none."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from pathlib import Path
from urllib import parse

import pytest

from truing import seals
from truing.disk import write_json
from truing.errors import cleaned, holds_key, redacted, visible

SHAPES = {
    "Hugging Face": "hf_abcdefghijklmnopqrstuvwxyz0123",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "a JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "a PEM": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc/def+ghi==\n-----END RSA PRIVATE KEY-----",
    "an address": "https://me:pass-word@host/x",
}
OPAQUE = "opaque0123456789abcdef"
BEFORE = [
    *(
        "OPENAI_API_KEY=",
        "AWS_SECRET_ACCESS_KEY=",
        "export MY_SERVICE_KEY_2=",
        "my_api_key: ",
        "openAiApiKey = '",
        "api key: ",
    ),
    *(
        "DB_PASSWORD=",
        "PGPASSWORD=",
        "dbPassword: ",
        "DB_PASS=",
        "pwd=",
        "password := ",
        '"passwd" => "',
        "password%3D",
    ),
    *(
        "hf_token=",
        "id_token=",
        "token=",
        '"token": "',
        "accessToken: ",
        "X-Auth-Token: ",
        "CI_JOB_TOKEN=",
        "DEPLOY_SECRET_V2=",
    ),
    *(
        "X-Amz-Signature=",
        "https://h/x?a=1&X-Amz-Security-Token=",
        "https://h/x?a=1&amp;token=",
        "?sig=",
        "session_id=",
    ),
    *(
        "Authorization: token ",
        "Authorization: ApiKey ",
        "authorization: ",
        "Authorization: Anything ",
        "PRIVATE-TOKEN: ",
    ),
    *(
        "Ocp-Apim-Subscription-Key: ",
        "Proxy-Authorization: Basic ",
        "Bearer%20",
        "('x-api-key', '",
        "[b'authorization', b'Bearer ",
    ),
    *(
        '{\\"api_key\\": \\"',
        '{\\\\\\"api_key\\\\\\": \\\\\\"',
        "{'api_key': b'",
        "{&quot;api_key&quot;: &quot;",
        "{&#39;token&#39;: &#39;",
    ),
    *(
        "os.environ['X_TOKEN'] = '",
        "curl --token ",
        "['curl', '--api-key', '",
        "Incorrect API key provided: ",
        "the token: ",
    ),
]
WHOLE = {
    "a comma": ("password=Xy,7secretsecret", "7secret"),
    "brackets": ("password=Xy(7)secretsecret", "secretsecret"),
    "short": ("password=hunter2", "hunter2"),
    "short, in YAML": ("password: hunter2", "hunter2"),
    "blanks": ('"password": "correct horse battery"', "battery"),
    "an ampersand": ("DB_PASSWORD=ab12&cd34efgh", "cd34"),
    "an angle": ("DB_PASSWORD=ab12<cd34efgh", "cd34"),
    "another quote": ("""password="ab12'cd34efgh" """, "cd34"),
    "cookies": ("Cookie: a=b12; session=opaque0123", "opaque"),
    "a cookie in a dictionary": ("{'Cookie': 'csrf=opaque0123; x=y'}", "opaque"),
    "a hidden character": ("token=opaque0123\u202e456789", "456789"),
    "a mark before it": ("password=⟨key⟩hunter2", "hunter2"),
    "a user like an address": (f"https://me@x.org:{OPAQUE}@host/x", OPAQUE),
    "a token alone": (f"https://{OPAQUE}@host/x", OPAQUE),
    "a slash": ("https://me:opaque0123/z9tail@host/x", "z9tail"),
    "an at": ("https://me:p@ssw0rdlong@host", "ssw0rd"),
    "an at and a slash": ("https://me:p@ss/w0rdlong@host", "w0rd"),
    "an empty user": ("redis://:hunter2@host:6379/0", "hunter2"),
    "an address in an address": (f"https%3A%2F%2Fme%3A{OPAQUE}%40host", OPAQUE),
    "an address in JSON": (f'"https:\\/\\/me:{OPAQUE}@host"', OPAQUE),
    "a web token behind another": (f"-eyJaaaaaaaa {SHAPES['a JWT']}", "dozjg"),
    "a PGP key": ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----", "lQOYBF"),
}
OURS = [
    'getattr(self.args, "hf_deepspeed_config", None), _hf_peft_config_loaded, token=self.args.hub_token',
    "valid_tokens = selected_tokens[:, : n_matches + 1], robot_tokens: candidates123",
    '("radio_model.cls_token.token", "embeddings.cls_register_token"), ["password", "token", "reward"]',
    "tokens: 1234, max_new_tokens=64, tokens_per_step=1024, 12,345 tokens/s",
    "eos_token=</s> pad_token: <|endoftext|> bos_token=<|begin_of_text|> pad_token_id: 128001",
    'special_tokens_map: {"eos_token": "<|im_end|>", "pad_token": "[PAD]", "unk_token": "token0123456789"}',
    "token 'x' at place 3, token: Sure, token=▁hello1234, the token: 12345678901234567890",
    "token_type_ids=[0, 0, 1], skip_special_tokens=True, add_special_tokens=False, split_special_tokens=True",
    "length(tokens: int, response: str, *, per_token: float = 0.0, per_character: float = 0.0) -> float",
    "self.eos_token = tokenizer.eos_token; tokenizer=tokenizer; pad_token_id = policy.tokenizer.pad_token_id",
    "key=value, sort key: name, cache key: 9b0d3c1f22aa9b0d3c1f22aa, key=lambda row: row.group, primary key: id123456",
    "unknown key 'lerning_rate'. Did you mean 'learning_rate'? Known: beta, learning_rate",
    "password: none, secret: null, token: None, api_key=None, password: ********, password=<your password>",
    "api_key=api_key, token=token, password=self.password, api_key=os.environ, secret: Secret",
    "token: 1.2345e-05 auth: none, session: 12, session: 2024-01-01T12:00:00, pass: 12 fail: 3, pass=0.9512345",
    "unigram tokens: pretokenizer=whitespace123, retoken=opaque0123456, compass=north1234, monkey: banana12",
    "signature: f(chosen_logp_B, rejected_logp_B, *, beta: float), sig: 0.0123456",
    "Basic understanding of a bearer of bad news; basic mathematics, a bearer identified",
    "https://host:8080/path?step=12 and me@host.org, ssh://git@github.com/x, https://medium.com/@someone/post1",
    "http://[::1]:8080/x@y, hf://datasets/me/name@0123456789abcdef0123, https://host/x?email=a@b.org",
    "the working set is 12 pairs: authors: 3; passage: the fox; compute key metrics: accuracy12 0.61",
    '{"key": "9b0d3c1f22aa9b0d3c1f22aa", "parts": {"tokenizer": "ab12cd34ef56"}, "seal": "9b0d3c1f22aa"}',
    "world: {prompts: desk, raters: 3}, rewards: [{gold: {weight: 1.0}}], template_token=abcd1234efgh",
    "the model's next token: refund1234567, an end token=im_end_123456, tokens=128k, 3.2 tokens: 5",
]


@pytest.mark.parametrize("before", BEFORE)
def test_a_name_of_any_form_gives_its_secret_away(before) -> None:
    """With a prefix, in a header, an address, JSON within JSON, a page, Python; the text around it stays."""
    text = redacted(f"said {before}{OPAQUE} end")
    assert text == f"said {before}⟨key⟩ end" == redacted(text)


@pytest.mark.parametrize("kind", WHOLE)
def test_no_part_of_a_secret_is_left(kind) -> None:
    text, secret = WHOLE[kind]
    assert secret in text and secret not in redacted(text) and redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("text", OURS)
def test_what_truing_says_itself_stays(text) -> None:
    assert redacted(text) == text == visible(text) and cleaned({"why": text}) == {"why": text} and not holds_key(text)


def test_the_sources_and_the_docs_hold_no_secret() -> None:
    """What truing is made of, line by line, is said in errors and tracebacks: none of it is taken for a key."""
    root = Path(__file__).parents[2]
    paths = [
        *root.glob("*.md"),
        *root.glob("docs/*.md"),
        *root.glob("recipes/*.yaml"),
        *root.glob("src/truing/**/*.py"),
    ]
    lines = [line for p in paths if p.stem not in ("redaction", "secret_shapes") for line in p.read_text().splitlines()]
    assert len(lines) > 10_000 and not [line for line in lines if redacted(line) != line]


def test_an_entry_whose_name_says_that_it_is_secret() -> None:
    options = {
        "api_key": "hunter22",
        "db": {"Password": "correct horse"},
        "eos_token": "token0123456",
        "tokens": "12345678",
    }
    assert cleaned(options) == options | {"api_key": "⟨key⟩", "db": {"Password": "⟨key⟩"}}
    assert cleaned({"token": "word", "token_id": OPAQUE, "hf_token": OPAQUE}) == {
        "token": "word",
        "token_id": OPAQUE,
        "hf_token": "⟨key⟩",
    }


@pytest.mark.parametrize(
    "value", ["wJalr/K7MDENG+bPxRfi", "correct horse battery", "geheimß/schlüssel?", "ab\\cd/ef\"gh'ij"]
)
def test_a_value_of_the_environment_in_every_writing(monkeypatch, value) -> None:
    monkeypatch.setenv("MY_SECRET", value)
    small = re.sub("%..", lambda code: code[0].lower(), parse.quote(value, safe=""))
    for form in (parse.quote(value), parse.quote_plus(value), small, parse.quote(parse.quote(value, safe=""), safe="")):
        assert redacted(f"said {form} end") == "said ⟨MY_SECRET⟩ end"
    for form in (json.dumps(value).replace("/", "\\/"), json.dumps(json.dumps(value))):
        assert "⟨MY_SECRET⟩" in redacted(form) and value[4:] not in redacted(form)
    for before in (b"", b"u:", b"me:", b"user:"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(before + value.encode() + b"\n").decode()
            shown = redacted(f"x {text} y")
            assert "⟨MY_SECRET⟩" in shown and len(shown.replace("⟨MY_SECRET⟩", "")) < 14 + len(before) * 2


@pytest.mark.parametrize("name", ["MYSQL_PWD", "DB_PW", "SENTRY_DSN", "APP_PRIVATE_KEY"])
def test_more_names_and_lines_of_a_value(monkeypatch, name) -> None:
    monkeypatch.setenv(name, "line-one-is-here\n  line two is here\nend")
    assert redacted("x line-one-is-here\n      line two is here") == f"x ⟨{name}⟩\n      ⟨{name}⟩"
    assert redacted("the end") == "the end"


def test_only_a_path_that_is_there_is_no_secret(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opaque-file-1").write_text("")
    monkeypatch.setenv("X_TOKEN", "opaque-file-1")
    monkeypatch.setenv("X_CREDENTIALS", str(tmp_path / "opaque-file-1"))
    monkeypatch.setenv("Y_CREDENTIALS", str(tmp_path / "nothing-here-1"))
    assert redacted("say opaque-file-1") == "say ⟨X_TOKEN⟩"
    assert redacted(f"{tmp_path / 'nothing-here-1'}") == "⟨Y_CREDENTIALS⟩"
    monkeypatch.delenv("X_TOKEN")
    assert redacted(f"{tmp_path / 'opaque-file-1'}") == f"{tmp_path / 'opaque-file-1'}"


def test_a_replacement_is_not_read_again(monkeypatch, tmp_path) -> None:
    """The name of one secret is the value of another's variable, a part of it, or what a replacement consists of."""
    monkeypatch.setenv("API_KEY_NAME", "OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", OPAQUE)
    monkeypatch.setenv("OTHER_TOKEN", "⟨OPENAI_API")
    monkeypatch.setenv("THIRD_TOKEN", "API_KEY⟩ and more")
    assert redacted(f"said {OPAQUE}") == "said ⟨OPENAI_API_KEY⟩" == redacted("said ⟨OPENAI_API_KEY⟩")
    body = seals.sealed({"reason": f"said {OPAQUE} and more", "title": f"password={OPAQUE}"})
    write_json(tmp_path / "sealed", body)
    assert seals.fits(json.loads((tmp_path / "sealed").read_text()))
    monkeypatch.setenv("LATE_TOKEN", "and more")
    write_json(tmp_path / "sealed", body)
    assert seals.fits(json.loads((tmp_path / "sealed").read_text())), "what is sealed is not cleaned afterwards"


def test_twice_is_once(monkeypatch) -> None:
    """Whatever pieces of secrets, names and replacements a text is made of; the same when it is shown as well."""
    monkeypatch.setenv("ANY_TOKEN", "aaaaaaaaaa")
    monkeypatch.setenv("KEY_SECRET", "key⟩ aaaa")
    pieces = [
        *BEFORE,
        *(text for text, _ in WHOLE.values()),
        *SHAPES.values(),
        "aaaa",
        "⟨",
        "⟩",
        "⟨key⟩",
        "⟨ANY_TOKEN⟩",
    ]
    pieces += [
        "\r",
        "\n",
        "\u202e",
        "\x1b",
        " ",
        '"',
        "'",
        "\\",
        "://",
        "@",
        ":",
        "=",
        "hf_",
        "eyJ",
        "ANY_TOKEN",
        "https",
        "x9",
    ]
    rng = random.Random(0)
    for _ in range(3000):
        text = redacted("".join(rng.choices(pieces, k=rng.randint(1, 10))))
        assert redacted(text) == text and redacted(visible(text)) == visible(text)


NASTY = [
    "-eyJaaaaaaaa",
    "eyJaaaaaaaa.eyJ",
    "token= ",
    "password='",
    'password="a ',
    "password=\\",
    "://a:",
    "://a@",
    "%3A%2F%2F",
]
NASTY += [
    "-----BEGIN A ",
    "-----BEGIN PRIVATE KEY",
    "\\",
    "⟨",
    "⟨key⟩",
    "password=⟨key⟩",
    "api_key",
    "=",
    "sk-",
    "Authorization: a ",
]
NASTY += ["cookie:", "?key=%", "--a-", "token\",'", "a", " ", "-", "İ", "password=&quot;a "]


@pytest.mark.parametrize("piece", NASTY)
def test_no_text_takes_long(monkeypatch, piece) -> None:
    """A hundred kilobytes of anything; what is quadratic takes many seconds, and this takes a quarter of one at most."""
    monkeypatch.setenv("ANY_TOKEN", "aaaaaaaaaa")
    begun = time.process_time()
    redacted(piece * (100_000 // len(piece)))
    assert time.process_time() - begun < 1.5
