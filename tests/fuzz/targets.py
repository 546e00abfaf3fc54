"""What is spoilt, the command that then reads it, and what must be so whatever it finds.

Whatever a file holds, the command ends within its limit, with one of its documented exit codes, without a traceback or
a fault of truing, without a character that a terminal obeys, and no JSON that it writes holds what is no number.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from truing import cli, door
from truing.policy import heads
from truing.policy.fresh import tokenizer_from
from truing.recipe.check import check
from truing.run import runner as running

SECONDS = 20.0
"""How long a command may take on what it reads here, which is small: a limit of its own may be 10 s for a program of a
stranger's, such as a template."""
MEMORY = 4_000_000_000
"""How much more memory it may take than the process had before, in bytes."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TEXT = [f"question {i}: is a refund due? yes, it is good; no, that is bad" for i in range(20)]
ROWS = [
    {"id": f"r{i}", "prompt": f"question {i}", "chosen": f"yes, {i} is good", "rejected": f"no, that is {i} bad"}
    for i in range(8)
]
TALKS = [
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": f"question {i}"},
            {"role": "assistant", "content": f"yes {i}", "weight": 1},
        ],
        "source": "desk",
    }
    for i in range(6)
]
RULES = """\
rules:
  - {check: win_rate, model: direct, against: base, end: lower, min: 0.5, samples: 10}
  - {check: held_out_accuracy, min: 0.1, max: 0.99}
  - check: length_ratio
    end: upper
    max: 1.5
"""
ONLINE = """\
title: online
base: {new: llama, hidden: 16, layers: 1, vocab: 280, text: rows.jsonl}
inputs: {data: rows.jsonl, prompts: prompts.jsonl}
production: $base
expect: {exam.last.implicit_accuracy: [0, 1]}
stages:
  warm: {do: sft, model: $base, data: $inputs.data, epochs: 1, tokens_per_step: 64, schedule: cosine}
  rm: {do: fit_reward, model: $warm, data: $inputs.data, steps: 1}
  loop:
    repeat: 3
    carry: {policy: $warm}
    stages:
      answers: {do: sample, model: $policy, prompts: $inputs.prompts, samples_per_prompt: 2, max_new_tokens: 4}
      pairs: {do: judge, data: $answers, rewards: [$rm, {length: {}}], keep: pair}
      policy: {do: prefer, model: $policy, data: $pairs, objective: [{dpo: {beta: 0.3}}, nll], steps: 1}
  last:
    do: reinforce
    model: $loop.policy
    prompts: $inputs.prompts
    rewards: [$rm, {length: {}}]
    objective: grpo
    group_size: 2
    steps: 1
  exam: {do: evaluate, models: [$loop-1-policy, $last], against: $warm, data: $inputs.data}
"""
RECIPE = """\
title: small
seed: 3
base: {new: llama, hidden: 16, layers: 1, vocab: 280, text: $inputs.data}
inputs: {data: rows.jsonl}
stages:
  data: {do: split, data: $inputs.data, eval: 0.3}
  warm: {do: sft, model: $base, data: $data.train, steps: 1, rows_per_step: 2, learning_rate: 5e-3}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval, steps: 1}
  direct: {do: prefer, model: $warm, data: $data.train, steps: 1, rows_per_step: 2, objective: {dpo: {beta: 0.1}}}
  exam: {do: evaluate, models: [$direct, $rm], against: $base, data: $data.eval}
  release: {do: gate, evidence: $exam, rules: rules.yaml}
"""
FINDINGS = {
    "findings": [
        {"check": "win_rate", "value": 0.62, "interval": [0.55, 0.69], "n": 200, "model": "direct", "against": "base"},
        {"check": "held_out_accuracy", "value": 0.8, "interval": [0.7, 0.9], "n": 100, "model": "rm"},
        {"check": "length_ratio", "value": 1.1, "interval": [1.0, 1.2], "n": 200, "model": "direct"},
    ]
}


@dataclass(frozen=True)
class Target:
    """One kind of file: which are spoilt (of a folder, where `within` names one), and the command that reads them."""

    name: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    codes: frozenset[int]
    share: int
    """How many of a thousand mutations are of this kind."""
    within: str = "."


MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
READ = frozenset({0, 2, 3})
JUDGED = frozenset({0, 1, 2, 3, 4})
TARGETS = [
    Target("model", (*MODEL, "chat_template.jinja"), ("score", "model", "rows.jsonl", "--out", "out.jsonl"), READ, 150, "model"),
    Target(
        "sampled",
        (*MODEL, "chat_template.jinja"),
        ("sample", "model", "prompts.jsonl", "--out", "out.jsonl", "--max-new-tokens", "4"),
        READ,
        70,
        "model",
    ),
    Target("reward", (*MODEL, "chat_template.jinja"), ("score", "rm", "rows.jsonl", "--out", "out.jsonl"), READ, 80, "rm"),
    Target(
        "adapter",
        ("adapter_config.json", "adapter_model.safetensors"),
        ("score", "adapter", "rows.jsonl", "--out", "out.jsonl"),
        READ,
        100,
        "adapter",
    ),
    Target("export", MODEL, ("export", "model", "--out", "exported"), READ, 30, "model"),
    Target("pairs", ("rows.jsonl",), ("split", "rows.jsonl", "--out", "parts"), READ, 100),
    Target("dropped", ("rows.jsonl",), ("split", "rows.jsonl", "--out", "parts", "--on-bad-row", "drop"), READ, 30),
    Target("talks", ("talks.jsonl",), ("split", "talks.jsonl", "--out", "parts"), READ, 60),
    Target("json", ("rows.json",), ("split", "rows.json", "--out", "parts"), READ, 40),
    Target("csv", ("rows.csv",), ("split", "rows.csv", "--out", "parts"), READ, 40),
    Target("parquet", ("rows.parquet",), ("split", "rows.parquet", "--out", "parts"), READ, 20),
    Target("gzip", ("rows.jsonl.gz",), ("split", "rows.jsonl.gz", "--out", "parts"), READ, 20),
    Target("recipe", ("recipe.yaml",), ("check", "recipe.yaml"), READ, 60),
    Target("online", ("online.yaml",), ("check", "online.yaml"), READ, 40),
    Target("rules", ("rules.yaml",), ("gate", "findings.json", "--rules", "rules.yaml", "--out", "decision.json"), JUDGED, 50),
    Target("findings", ("findings.json",), ("gate", "findings.json", "--rules", "rules.yaml", "--out", "decision.json"), JUDGED, 60),
    Target("evidence", (), ("gate", "run", "--rules", "rules.yaml", "--out", "decision.json"), JUDGED, 30, "run"),
    Target("report", (), ("report", "run"), READ, 10, "run"),
    Target("lineage", ("lineage.json",), ("export", "trained", "--out", "exported"), READ, 10, "trained"),
]  # fmt: skip
BY_NAME = {target.name: target for target in TARGETS}
assert sum(target.share for target in TARGETS) == 1000


def build(folder: Path) -> Path:
    """Write the folder that is spoilt: the smallest models, rows in every form, a recipe, rules, findings, a run."""
    tokenizer = tokenizer_from(TEXT, 280)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_key_value_heads=2)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), max_position_embeddings=256, **size, **ids)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    heads.save(heads.fresh_reward(str(folder / "model"), seed=0), folder / "rm")
    (folder / "adapter").mkdir()
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(model, lora)
    adapted.peft_config["default"].base_model_name_or_path = "../model"
    with inside(folder / "adapter"):
        adapted.save_pretrained(".")
    _write_rows(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "online.yaml").write_text(ONLINE)
    (folder / "rules.yaml").write_text(RULES)
    (folder / "findings.json").write_text(json.dumps(FINDINGS))
    _write_run(folder)
    return folder


def _write_rows(folder: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.json").write_text(json.dumps(ROWS, indent=1))
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TALKS))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in ROWS[:2]))
    cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    (folder / "rows.csv").write_text("".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in cells))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")


def _write_run(folder: Path) -> None:
    """A finished run of the recipe."""
    with inside(folder), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        running.run(check(Path("recipe.yaml"), []), Path("run"), quiet=True)
        shutil.copytree(Path("run/direct/model"), Path("trained"))  # where no stage says what it left


def files_of(target: Target, folder: Path) -> list[str]:
    """The files of a target's folder that are spoilt; where it names none, all that are text."""
    inner = folder / target.within
    if target.files:
        return [name for name in target.files if (inner / name).exists()]
    return sorted(p.name for p in inner.iterdir() if p.suffix in (".json", ".yaml", ".jsonl")) + sorted(
        p.relative_to(inner).as_posix() for p in inner.glob("*/*.json*")
    )


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Be in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Late(BaseException):
    """A command took more than SECONDS. No Exception, for nobody may catch it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Late after so many seconds, and MEMORY more at most."""

    def late(*_: Any) -> None:
        raise Late(f"not done after {seconds:.0f} s")

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, memory[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def copied(template: Path, work: Path, target: Target, edit: Callable[[Path], None]) -> Iterator[Path]:
    """A copy of what a target's command reads, spoilt; it is removed afterwards."""
    place = work / "desk"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    needed = {target.within, *(word for word in target.command if (template / word).exists())} - {"."}
    needed |= (
        {"rows.jsonl", "prompts.jsonl", "rules.yaml", "model"}
        if target.name in ("recipe", "online", "adapter")
        else set()
    )
    for name in sorted({*needed, *(target.files if target.within == "." else ())}):
        source = template / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place / name)
    edit(place / target.within)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def in_process(command: tuple[str, ...]) -> tuple[int, str]:
    """Run a command in this process; its exit code, and what it printed. A traceback is printed where it fails."""
    out, arguments, terminated = io.StringIO(), sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["truing", *command]
    code: Any = 0
    try:
        with redirect_stdout(out), redirect_stderr(out), limited(SECONDS):
            cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    except Late as problem:
        code, _ = 124, out.write(str(problem))
    finally:
        sys.argv = arguments
        signal.signal(signal.SIGTERM, terminated)
    return int(code), out.getvalue()


def as_command(command: tuple[str, ...]) -> tuple[int, str]:
    """Run a command as a process of its own."""
    words = [sys.executable, "-m", "truing", *command]
    try:
        done = subprocess.run(words, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return 124, "not done after 120 s"
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def problem(target: Target, place: Path, code: int, printed: str) -> str:
    """What a command did that it must never do, in one line; empty where it did nothing of the kind."""
    if "Traceback" in printed or "fault of truing" in printed:
        return _last_frame(printed)
    if code not in target.codes:
        return f"exit code {code}: {printed.strip()[-200:]}"
    if code and "truing: " not in printed and code not in (1, 4):
        return f"exit code {code} without a word: {printed.strip()[-200:]}"
    if match := CONTROL.search(printed):
        return f"prints U+{ord(match[0]):04X}: {printed[max(0, match.start() - 60) : match.end() + 20]!r}"
    return _no_number(place)


def _last_frame(printed: str) -> str:
    frames = re.findall(r'File ".*?/(truing/[\w/]+\.py)", line (\d+), in (\w+)', printed)
    lines = [
        line for line in printed.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt|Found|Panic\w*)\b", line)
    ]
    return f"{(lines or ['a traceback'])[-1][:160]} in {'/'.join(frames[-1]) if frames else '?'}"


def _no_number(place: Path) -> str:
    """A JSON that was written and holds NaN or an infinite number."""
    for name in ("out.jsonl", "decision.json", "parts", "exported"):
        for path in [place / name] if (place / name).is_file() else sorted((place / name).glob("*.json*")):
            text = path.read_text(encoding="utf-8")
            for part in text.split("\n") if path.suffix == ".jsonl" else [text]:
                if "NaN" not in part and "Infinity" not in part:
                    continue
                try:
                    door.parse_json(
                        part, strict=name != "exported"
                    )  # a config may hold Infinity, as transformers has it
                except ValueError as error:
                    return f"{path.name} holds what is no number: {error}"
    return ""


def judge(
    target: Target,
    template: Path,
    work: Path,
    edit: Callable[[Path], None],
    by: Callable[[tuple[str, ...]], tuple[int, str]] = in_process,
) -> tuple[int, str]:
    """The exit code of a target's command on a spoilt copy, and what it did that it must not do."""
    with copied(template, work, target, edit) as place, inside(place):
        code, printed = by(target.command)
        return code, problem(target, place, code, printed)
