"""Files made to do harm: nothing in them is run, nothing in them takes for ever, and no key is written down."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123"


class Touch:
    """What a pickle runs when it is read: it makes a file `RAN`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "RAN"),)


def ran(place) -> bool:
    """Whether a file's own code was run."""
    return (place.folder / "RAN").exists()


def evil(place) -> bytes:
    """A pickle that makes a folder `RAN` when it is read."""
    return pickle.dumps(Touch(place.folder))


def test_the_pickle_of_these_tests_is_one(place) -> None:
    """Fault 56: what the tests below must not read does run when it is read."""
    pickle.loads(evil(place))
    assert ran(place)


def test_pickled_weights(place, good_rows) -> None:
    """Fault 56: pickles beside the weights are not read, and a model of nothing but pickles is refused."""
    place.write(good_rows())
    model = place.spoilt()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin", "rng_state.pth"):
        (model / name).write_bytes(evil(place))
    assert place.score("spoilt") == place.score()
    (model / "model.safetensors").unlink()
    assert place("score", "spoilt", "rows.jsonl", "--out", "other.jsonl") == 2
    assert "its weights are pickled (" in place.said and not (place.folder / "other.jsonl").exists()
    (model / "model.safetensors").write_bytes(evil(place))
    assert place("score", "spoilt", "rows.jsonl", "--out", "other.jsonl") == 2
    assert not ran(place)


@pytest.mark.parametrize("target", [".metadata", "__0_0.distcp", "*.safetensors", "manifest.json"])
def test_pickles_in_a_checkpoint(place, good_rows, monkeypatch, target) -> None:
    """Fault 56: a pickle put into a checkpoint, under any name, is never run by --resume."""

    def stopped(*_):
        raise KeyboardInterrupt

    place.write(good_rows())
    stage = "warm: {do: sft, model: model, data: rows.jsonl, steps: 3, checkpoint_every: 1}"
    with monkeypatch.context() as patched:
        patched.setattr("truing.stages.training.heads.save", stopped)
        assert place.run(stage) == 130
    kept = sorted((place.out / "warm" / "checkpoints").glob("step-*"))
    assert kept and all(any(folder.glob("*.safetensors")) for folder in kept)
    for folder in kept:
        for path in list(folder.glob(target)) or [folder / target]:
            path.write_bytes(evil(place))
    code = place.run(stage, more=("--resume",))
    assert not ran(place)
    assert code == (0 if target in (".metadata", "__0_0.distcp") else 3), place.said


def test_code_in_a_model_folder(place, good_rows, change) -> None:
    """Fault 57: a model or tokenizer that brings code of its own is refused, and the code is not run."""
    place.write(good_rows())
    for name, entries in (
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Own", None]}, "tokenizer_class": "Own"}),
    ):
        model = place.spoilt()
        (model / "evil.py").write_text(f"import os\nos.mkdir({str(place.folder / 'RAN')!r})\n")
        change(model / name, **entries)
        assert place("score", "spoilt", "rows.jsonl", "--out", "scored.jsonl") == 2
        assert "model 'spoilt': " in place.said and "code" in place.said
    assert not ran(place)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ cycler.__init__.__globals__.os.mkdir('RAN') }}", "is unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "is unsafe"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "took more than 0.2 s"),
    ],
)
def test_a_chat_template_that_breaks_out(place, good_rows, monkeypatch, template, told) -> None:
    """Fault 57: a template that reaches out of its sandbox, or never ends, is refused; on_bad_row cannot hide the last."""
    monkeypatch.setattr("truing.data.rendering.template_program.SECONDS", 0.2)
    place.write(good_rows())
    (place.spoilt() / "chat_template.jinja").write_text(template)
    stage = "warm: {do: sft, model: spoilt, data: rows.jsonl, steps: 1, on_bad_row: drop}"
    assert place.run(stage) == 2
    assert place("score", "spoilt", "rows.jsonl", "--out", "scored.jsonl") == 2
    assert told in place.said and not ran(place)
    assert not (place.out / "warm" / "model").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)
YAMLS = {
    "a tag": ("{}: !!python/object/apply:os.mkdir [RAN]\n", "tag"),
    "an alias bomb": (BOMB + "{}: *k\n", "anchors"),
    "a key twice": ("{}: []\n{}: []\n", "stands twice"),
}


@pytest.mark.parametrize("kind", YAMLS)
@pytest.mark.parametrize("key", ["stages", "rules"])
def test_yaml_made_to_do_harm(place, kind, key) -> None:
    """Fault 60: tags, alias bombs and keys that stand twice are refused in recipes and in rules files, with the line."""
    text, told = YAMLS[kind]
    place.write(text.replace("{}", key), "x.yaml")
    place.write('{"findings": [{"check": "win_rate", "model": "m", "value": 0.6}]}', "found.json")
    command = ("check", "x.yaml") if key == "stages" else ("gate", "found.json", "--rules", "x.yaml")
    assert place(*command) == 2
    assert told in place.said and "x.yaml" in place.said and not ran(place)


@pytest.mark.parametrize("line", [f"# {SECRET}", f"title: {SECRET}", "title: 'https://me:pass-word@host/x'"])
def test_a_key_in_a_recipe(place, good_rows, line) -> None:
    """Fault 61: a recipe or an override with a key in it is refused with the line, the key is not repeated, nothing made."""
    place.write(good_rows())
    place.recipe("data: {do: split, data: rows.jsonl}")
    whole = (place.folder / "r.yaml").read_text()
    place.write(whole + line + "\n", "key.yaml")
    assert place("run", "key.yaml", "--out", "out") == 2
    assert "key.yaml:3: holds what looks like a key or password" in place.said
    assert place("run", "r.yaml", line.removeprefix("# ").replace(": ", "="), "--out", "out") == 2
    for word in (SECRET, "pass-word"):
        assert word not in place.said
    assert not place.out.exists()


def test_a_key_in_an_error(place, monkeypatch) -> None:
    """Fault 61: a key of the environment that an error repeats is neither printed nor kept in the run's folder."""
    words = {"HF_TOKEN": SECRET, "MY_SERVICE_PASSWORD": "correct horse battery"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)

    def refuse(*_, **__):
        raise ConnectionError(f"401 for https://host, header Bearer {SECRET}, {words['MY_SERVICE_PASSWORD']}")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=refuse))
    assert place.run("data: {do: split, data: me/pairs}") == 2
    assert "header Bearer ⟨HF_TOKEN⟩, ⟨MY_SERVICE_PASSWORD⟩" in place.said
    kept = [path for path in place.out.rglob("*") if path.is_file()]
    assert {"manifest.json", "report.html"} <= {path.name for path in kept}
    for text in (place.said, *(path.read_text(encoding="utf-8") for path in kept)):
        assert not any(value in text for value in words.values())


def header(raw: bytes) -> tuple[dict, bytes]:
    """The header of a safetensors file, and what follows it."""
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def lies(raw: bytes):
    """A safetensors file whose header lies about its own size, a tensor's place, and a tensor's shape."""
    yield struct.pack("<Q", 2**40) + raw[8:]
    for field, value in (("data_offsets", [0, 2**33]), ("shape", [2**40, 2**20])):
        told, rest = header(raw)
        told[next(name for name in told if name != "__metadata__")][field] = value
        text = json.dumps(told).encode()
        yield struct.pack("<Q", len(text)) + text + rest


def test_weights_that_lie_about_their_size(place, good_rows) -> None:
    """Fault 63: a header that promises more than the file holds is refused with the model's name."""
    place.write(good_rows())
    weights = place.spoilt() / "model.safetensors"
    for raw in list(lies(weights.read_bytes())):
        weights.write_bytes(raw)
        assert place("score", "spoilt", "rows.jsonl", "--out", "scored.jsonl") == 2
        assert "model 'spoilt': " in place.said and "Traceback" not in place.said
        assert "its model.safetensors cannot be read: it is " in place.said or "deserializing header" in place.said


DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_depth_bomb_in_a_model(place, good_rows, name) -> None:
    """Fault 63: JSON nested without end in a model's folder is refused with the model's name."""
    place.write(good_rows())
    (place.spoilt() / name).write_text(DEEP)
    assert place("score", "spoilt", "rows.jsonl", "--out", "scored.jsonl") == 2
    assert "model 'spoilt': " in place.said and "nested more than 100 deep" in place.said


def test_a_depth_bomb_in_data_and_findings(place, good_rows) -> None:
    """Fault 63: JSON nested without end is a bad row of a data file, and no findings; a report names the damaged piece."""
    place.write("".join(json.dumps(row) + "\n" for row in good_rows()) + DEEP + "\n")
    assert place("split", "rows.jsonl", "--out", "parts") == 2
    assert "rows.jsonl, row 9: (line 9) malformed JSON: nested too deeply" in place.said
    assert (
        place("split", "rows.jsonl", "--out", "parts", "--on-bad-row", "drop") == 0
        and "9 rows read, 8 usable" in place.said
    )
    place.write(DEEP, "found.json")
    place.write("rules: [{check: win_rate, min: 0.5}]", "rules.yaml")
    assert place("gate", "found.json", "--rules", "rules.yaml") == 2 and "found.json: is not JSON" in place.said
    assert place.run("data: {do: split, data: rows.jsonl, on_bad_row: drop, eval: 0.3}") == 0
    (place.out / "data" / "summary.json").write_text(DEEP)
    assert place("report", "out") == 0
    assert "data/summary.json: cannot be read" in place.page()


def test_an_out_that_is_a_link(place, good_rows) -> None:
    """No command writes through a link that stands where its result should, nor before it has worked."""
    place.write(good_rows())
    mine = place.write("mine", "mine.txt")
    place.write('{"findings": [{"check": "win_rate", "model": "m", "value": 0.6}]}', "found.json")
    place.write("rules: [{check: win_rate, min: 0.5}]", "rules.yaml")
    (place.folder / "link").symlink_to(mine)
    (place.folder / "parts").mkdir()
    (place.folder / "parts" / "eval.jsonl").symlink_to(mine)
    for command in (
        ("sample", "no-such-model", "rows.jsonl", "--out", "link"),
        ("score", "no-such-model", "rows.jsonl", "--out", "link"),
        ("export", "no-such-model", "--out", "link"),
        ("export", "no-such-model", "--gguf", "link"),
        ("gate", "found.json", "--rules", "rules.yaml", "--out", "link"),
        ("split", "rows.jsonl", "--out", "parts"),
    ):
        assert place(*command) == 2, command
        assert "is a link to" in place.said and mine.read_text() == "mine", command
    assert [path.name for path in (place.folder / "parts").iterdir()] == ["eval.jsonl"]


def test_weights_have_the_mode_of_the_umask(place, good_rows) -> None:
    """Safetensors gives its files 0600; a colleague who may read the run may read its weights."""
    place.write(good_rows())
    before = os.umask(0o027)
    try:
        assert place.run("warm: {do: sft, model: model, data: rows.jsonl, steps: 1}") == 0
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in place.out.rglob("*") if path.is_file()}
    assert modes == {0o640}
