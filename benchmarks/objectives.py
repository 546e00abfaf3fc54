"""The cost of a step with each objective, on the same trees: forward and backward dominate, whatever the method.

    make cost                     # after the curves, this table

The same 8 trees (a prompt of 200 tokens, two responses of 60) are read in the shape of each objective, with the
reference stored; a step is what `fit` does: observe, statistics of the step, loss, backward, update. One thread, CPU
seconds, objectives in turn within a round; the median over rounds, and its ratio to that of `dpo` (a reward model:
`bradley_terry`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.data.kinds import shape_of
from truing.data.trees import with_shadows
from truing.policy import heads
from truing.policy.load import load
from truing.policy.policy import Policy
from truing.policy.reference import Reference, compute
from truing.recipe.families import of_reward, of_rollouts
from truing.records import OWED
from truing.settings import Training
from truing.signals.observe import observe
from truing.train.fit import reading
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import Optim
from truing.train.step_statistics import Survey

TREES, PROMPT, LENGTH = 8, 200, 60
ROLES = {"pairs": ("chosen", "rejected"), "ranked": ("chosen", "rejected"), "labelled": ("desirable", "undesirable")}


def batch(shape: str) -> Batch:
    """The trees in this shape; their tokens are the same in each."""
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(300, 8000, (n,), generator=generator).tolist())

    def branch(role: str) -> Branch:
        every = 1 if shape == "outcomes" else 8
        steps = tuple((t, 1.0) for t in range(0, LENGTH, every)) if shape in ("outcomes", "steps") else ()
        return Branch(role, ids(LENGTH), (True,) * LENGTH, {"": 1.0}, steps)

    safe = {"chosen_safe_B": 1.0, "rejected_safe_B": 0.0}
    roles = ROLES.get(shape, ("response", "response"))
    trees = [Tree(ids(PROMPT), tuple(map(branch, roles)), i, i, safe) for i in range(TREES)]
    return Batch(with_shadows(trees, 0, PROMPT + LENGTH))


class Bench:
    """One objective, ready to take steps with a policy of its own kind."""

    def __init__(self, name: str, policy: Policy, rounds: int) -> None:
        objective = registry.load(name, "objective")
        self.name, self.policy = name, policy
        self.terms, self.batch = WeightedObjectives([Term(objective, {})]), batch(shape_of(objective.needs))
        self.reference: Reference | None = None
        if self.terms.needs_reference:
            trees = (*self.batch.trees, *self.batch.shadows().trees)
            self.reference = compute(policy, trees, 10**9)
        self.survey, self.optim = Survey(self.terms), Optim(policy.model, Training(learning_rate=1e-9), rounds + 1)

    def step(self, number: int) -> float:
        """CPU seconds of one step."""
        start = time.process_time()
        parts = [(self.batch, 1.0)]
        read = reading(observe, self.policy, self.reference, self.terms.all_signals, parts, fresh=False)
        self.survey.take(self.batch, parts, read)
        signals = read(self.batch, self.terms.signals)
        loss, _ = self.terms.total(signals, self.terms.counts(self.batch), self.survey.of(self.batch))
        loss.backward()
        self.optim.step(number)
        return time.process_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    policy, reward = load(str(args.models / "S-8k")), heads.fresh_reward(str(args.models / "S-8k"), seed=0)
    reward.model.register_parameter("tie_logit", torch.nn.Parameter(torch.zeros(1)))
    policy.verified = reward.verified = True
    parts = registry.parts("objective")
    names = sorted(name for name, part in parts.items() if not OWED & set(part.needs) and not of_rollouts(part))
    benches = [Bench(name, reward if of_reward(parts[name]) else policy, args.rounds) for name in names]
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1, args.rounds + 2):
        for bench in benches:
            seconds = bench.step(number)
            if number > 1:
                times[bench.name].append(seconds)
        print(f"round {number} of {args.rounds + 1}", file=sys.stderr)
    print("\n| objective | ms a step | relative to dpo, or bradley_terry | computes besides |\n|---|---|---|---|")
    for bench in benches:
        base = times["bradley_terry" if bench.policy is reward else "dpo"]
        ratio = statistics.median(times[bench.name]) / statistics.median(base)
        extra = {"mismatched_logp_B": "another prompt's responses, forward", "prompt_logp_B": "the prompt's tokens"}
        more = ", ".join(words for signal, words in extra.items() if signal in bench.terms.all_signals)
        print(f"| `{bench.name}` | {1e3 * statistics.median(times[bench.name]):.0f} | {ratio:.3f} | {more} |")


if __name__ == "__main__":
    main()
