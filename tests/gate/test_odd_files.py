"""Evidence, ledgers, rules and what a run wrote, of wrong types and sizes: the user's to mend, never a fault."""

from __future__ import annotations

import json
import os

import pytest

from truing import seals
from truing.diagnose.curve import read_curve
from truing.errors import DataError, RunFailed, UserError
from truing.gate import evidence, looks
from truing.gate.rules import read_rules
from truing.report.folder import read_run
from truing.run.plan import made_by_truing

FINDING = {"check": "win_rate", "value": 0.6, "interval": [0.5, 0.7], "n": 100, "model": "policy"}
ODD = [None, True, 1, -1, 0.5, "", "text", [], [1], {}, {"a": 1}, [[]], 10**300, "x" * 100_000]
"""One value of every type, where another is expected."""


def put(folder, name, value):
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
def test_findings_of_any_types_are_read_or_refused(tmp_path, odd):
    for body in (
        odd,
        {"findings": odd},
        {"findings": [odd]},
        *({"findings": [FINDING | {key: odd}]} for key in (*FINDING, "bound", "measured", "against", "slice", "other")),
        *(
            seals.sealed({"findings": [FINDING], "about": about})
            for about in (odd, {"models": odd}, {"production": odd})
        ),
        seals.sealed({"findings": [FINDING], "about": {"models": {"a": odd}}}),
    ):
        try:
            evidence.read(put(tmp_path, "f.json", body))
        except UserError as problem:
            assert "f.json" in str(problem) and len(str(problem)) < 5000


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
def test_a_runs_own_files_of_any_types_are_refused(tmp_path, odd):
    stage = {"name": "exam", "key": "k", "state": "done", "parts": {}, "outputs": {}}
    (tmp_path / "exam").mkdir()
    for key in ("outputs", "name", "state", "parts", "key"):
        put(tmp_path / "exam", "stage.json", seals.sealed(stage | {key: odd}))
        for read in (made_by_truing, seals.check_stage):
            try:
                read(tmp_path / "exam")
            except UserError as problem:
                assert "exam" in str(problem)
    for rows in (odd, [odd], [{"name": odd, "state": "done"}], [{"name": "exam", "state": odd}]):
        put(tmp_path, "manifest.json", seals.sealed({"state": "done", "stages": rows}))
        if rows not in ([], None):
            with pytest.raises(UserError):
                evidence.read(tmp_path)
        read_run(tmp_path)
    put(tmp_path, "looks.json", seals.sealed({"looks": odd}))
    if odd != []:
        with pytest.raises(UserError, match=r"looks.json"):
            looks.read_looks(tmp_path / "looks.json")


def test_a_manifest_names_no_folder_outside_of_its_run(tmp_path):
    (tmp_path / "run").mkdir()
    put(tmp_path, "summary.json", {"headline": "another's"})
    for name in ("..", "../", "../run", "/etc"):
        body = seals.sealed({"state": "done", "stages": [{"name": name, "state": "done", "do": "evaluate"}]})
        put(tmp_path / "run", "manifest.json", body)
        with pytest.raises(UserError, match="'stages' is not what a run writes there"):
            evidence.read(tmp_path / "run")
        pieces = read_run(tmp_path / "run")
        assert not pieces.stages and "is no stage's name" in pieces.damaged[0]


READERS = {
    "f.json": evidence.read,
    "rules.yaml": read_rules,
    "looks.json": looks.read_looks,
    "monitor.jsonl": lambda path: read_curve(path, "policy"),
    "stage.json": seals.read_object,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "{" * 50_000,
        "\0" * 10,
        "\xff\xfe",
        '{"a": 1e999}',
        "9" * 5000,
        "",
        " ",
        '"\\ud800"',
        "[1, 2",
        "NaN",
    ],
    ids=lambda text: text[:8],
)
def test_text_that_is_none_is_the_users_to_mend(tmp_path, name, content):
    path = tmp_path / "of" / "nobody" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=name) as caught:
        READERS[name](path)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, name):
    path = tmp_path / "of" / "nobody" / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match=name):
        READERS[name](path)
    if name != "f.json":  # evidence is read where a link leads, and is called so
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(UserError, match=name):
            READERS[name](path)


def test_evidence_is_no_larger_than_anybody_writes(tmp_path):
    with (tmp_path / "f.json").open("wb") as file:
        file.truncate(200_000_000)  # a hole, which takes no room
    with pytest.raises(DataError, match=r"f.json: has 200,000,000 bytes, and at most 100,000,000 are read"):
        evidence.read(tmp_path / "f.json")


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
def test_rules_of_any_types_are_read_or_refused(tmp_path, odd):
    rule = {"check": "win_rate", "min": 0.5}
    bodies = [odd, {"rules": odd}, {"rules": [odd]}]
    bodies += [
        {"rules": [rule | {key: odd}]} for key in ("check", "min", "max", "end", "samples", "model", "slice", "x")
    ]
    for body in bodies:
        try:
            read_rules(put(tmp_path, "rules.yaml", body))
        except UserError as problem:
            assert "rules.yaml" in str(problem) and len(str(problem)) < 5000


def test_rules_of_many_and_of_odd_yaml(tmp_path):
    for text in ("rules: &a [*a]", "? [a]\n: 1\n", "rules: [{check: a, min: " + "1:" * 2000 + "1.5}]", "#" * 400_000):
        with pytest.raises(UserError, match=r"rules.yaml"):
            read_rules(put(tmp_path, "rules.yaml", text))
    with pytest.raises(UserError, match="and 900 mistakes more") as caught:
        read_rules(put(tmp_path, "rules.yaml", json.dumps({"rules": [{"check": 1}] * 1000})))
    assert len(str(caught.value)) < 20_000


def test_rounds_that_are_not_what_was_written_end_the_run(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from truing.rollout import experience

    said = {"row": 1, "prompt": [{"role": "user", "content": "q"}], "response": "a", "prompt_ids": [1]}
    said |= {"response_ids": [2], "logp_T": [-1.0], "ref_logp_T": [], "value_T": [], "score": 1.0, "stop": "end"}
    said |= {"group": 0, "policy_version": 0, "parts": [], "why": "", "old_logp_T": []}
    path = tmp_path / "round-00001.parquet"
    parquet.write_table(pa.Table.from_pylist([said], schema=experience.SCHEMA), path)
    assert experience.read(path)[0].response == "a" and experience.is_experience(path)
    for name in ("prompt", "response", "group", "logp_T"):
        parquet.write_table(pa.Table.from_pylist([said | {name: None}], schema=experience.SCHEMA), path)
        with pytest.raises(RunFailed, match=f"round-00001.parquet: a response has no '{name}'"):
            experience.read(path)
    parquet.write_table(pa.table({"text": ["a"]}), path)
    assert not experience.is_experience(path)
    path.write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1")
    with pytest.raises(DataError, match=r"round-00001\.parquet"):
        experience.is_experience(path)
    for read in (experience.failures, experience.parts, lambda folder: experience.counts(folder, 2)):
        with pytest.raises(RunFailed, match="cannot be read"):
            read(tmp_path)
    path.rename(tmp_path / "round-1x.parquet")
    assert experience.rounds(tmp_path) == {}
