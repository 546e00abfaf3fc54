"""One stage's loop of Truing on the given rows, timed: what a recipe runs, with its record, metrics and checks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common import MAX_LENGTH, SETTINGS, arguments, clock, report, rows

args = arguments(__doc__ or "")

import torch  # noqa: E402

from truing.data.batch import Tree  # noqa: E402
from truing.data.rendering.render import Renderer  # noqa: E402
from truing.data.trees import build_trees  # noqa: E402
from truing.objectives import bradley_terry, dpo, nll  # noqa: E402
from truing.policy import reference  # noqa: E402
from truing.policy.load import load  # noqa: E402
from truing.records import Judgement, Message, Records, Verdict  # noqa: E402
from truing.settings import Training  # noqa: E402
from truing.train.fit import fit  # noqa: E402
from truing.train.objective_sum import Term, WeightedObjectives  # noqa: E402
from truing.train.optim import Optim  # noqa: E402
from truing.train.record.metrics import Record  # noqa: E402
from truing.train.source import DataSource  # noqa: E402


class InOrder(DataSource):
    """The rows as they stand, epoch after epoch, as the other side reads them."""

    def epoch(self, number: int) -> list[tuple[Tree, ...]]:
        return [self.trees[i : i + args.batch] for i in range(0, len(self.trees), args.batch)]


def records() -> Records:
    """The rows as judgements."""

    def messages(part: list[dict[str, str]]) -> tuple[Message, ...]:
        return tuple(Message(m["role"], m["content"]) for m in part)

    judgements = [
        Judgement(str(i), messages(r["prompt"]), (messages(r["chosen"]), messages(r["rejected"])), Verdict("choice", 0))
        for i, r in enumerate(rows(args))
    ]
    return Records("rows", tuple(judgements), tuple(range(1, len(judgements) + 1)))


def operations(model: torch.nn.Module, trees: Sequence[Tree], task: str) -> Iterator[float]:
    """The floating-point operations that training on each tree needs (forward and twice that backward): matrices of
    the body over all tokens, the head over response tokens, attention over what may be seen."""
    config = model.config
    body = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n)
    for tree in trees:
        lengths, prompt = [len(b.ids) for b in tree.branches], len(tree.prompt)
        visible = prompt * prompt / 2 + sum(n * (prompt + n / 2) for n in lengths)
        heads = 0 if task == "reward" else config.vocab_size * config.hidden_size * sum(lengths)
        attention = 2 * visible * config.num_hidden_layers * config.num_attention_heads * config.head_dim
        yield 6.0 * (body * tree.tokens + heads + attention)


def main() -> None:
    """Train as the task says and print one line. Where the reference counts as online, a step is charged with its share
    of the one pass that reads it, as if there were a single epoch."""
    if not args.wall:
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    now = clock(args)
    policy = load(f"{args.model}-reward", "reward") if args.task == "reward" else load(str(args.model))
    shape = "single" if args.task == "sft" else "pairs"
    dataset = build_trees(records(), Renderer(policy.tokenizer), max_length=MAX_LENGTH, shape=shape)
    training = Training(
        epochs=args.epochs,
        learning_rate=SETTINGS["learning_rate"],
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        max_grad_norm=SETTINGS["clip"],
        tokens_per_device=10**9,
        max_length=MAX_LENGTH,
    )
    source = InOrder(dataset.trees, training)
    objective = {"sft": nll, "reward": bradley_terry}.get(args.task, dpo)
    marks, tokens, losses = [], [], []

    def show(row: Mapping[str, float], _: int) -> None:
        marks.append(now())
        tokens.append(int(row["tokens"]))
        losses.append(row["loss"])

    folder = Path(tempfile.mkdtemp())
    record = Record(folder, show=show)
    then = None
    if args.task.startswith("dpo"):
        begun = now()
        then = reference.compute(policy, dataset.trees, training.tokens_per_device)
        reading = now() - begun
    spent = 0.0 if args.task != "dpo" else reading / len(dataset.trees) * args.batch
    start = now()
    fit(
        policy,
        source,
        WeightedObjectives([Term(objective, {})]),
        Optim(policy.model, training, source.steps),
        record,
        then,
    )
    seconds = [b - a + spent for a, b in zip([start, *marks], marks, strict=False)]
    shutil.rmtree(folder)
    work = sum(operations(policy.model, dataset.trees, args.task)) * args.epochs
    report(args, "truing", seconds, tokens, losses, rate=work / (sum(seconds) - spent * len(seconds)))


if __name__ == "__main__":
    main()
