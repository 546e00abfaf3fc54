"""From a round's experience to the trees that objectives read: advantages, or responses sorted into preferences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from truing.data.batch import Tree
from truing.data.kinds import WORDS, common_shape
from truing.errors import UserError
from truing.online.advantages import ADVANTAGES, Round, advantage_of, metrics_of, weighed
from truing.online.generation import grouped
from truing.online.history import RoundHistory
from truing.online.preferences import SORTED, imitated
from truing.online.schedule import RoundPlan, replaced
from truing.rewards import combine
from truing.rollout import experience
from truing.rollout.experience import Experience
from truing.settings import Online, Shaping
from truing.train.objective_sum import WeightedObjectives


class TreeBuilder:
    """Builds the trees of a round for the objectives of `terms`; `history` gives the scale of scores.

    UserError for objectives that cannot learn from scored responses, or not from the same ones.
    """

    def __init__(self, terms: WeightedObjectives, online: Online, shaping: Shaping, history: RoundHistory) -> None:
        self.terms, self.online, self.shaping, self.history = terms, online, shaping, history
        self.advantage = advantage_of(terms)
        shape = common_shape((term.name, term.objective.needs) for term in terms.terms)
        if "mismatched_logp_B" in terms.all_signals:
            raise UserError("an objective that holds responses against other prompts learns from given data only")
        if shape not in SORTED:
            raise UserError(f"an objective that learns from {WORDS[shape]} cannot learn from scored responses")
        self.imitates = shape == "single" and self.advantage is None
        self.compares = not self.imitates and self.advantage not in ("gae", "returns", "none") and online.group_size > 1
        self.sort = functools.partial(imitated, passing=online.passing) if self.imitates else SORTED[shape]
        self.values = "value_BT" in terms.all_signals

    def build(self, plan: RoundPlan, rows: Sequence[Experience]) -> tuple[list[Tree], dict[str, float]]:
        """The round's trees and its metrics: a tree a prompt, its responses with all that the objectives read of them;
        for a method that learns from preferences, sorted by their scores.

        Responses that could not be scored are left out, and, where responses are compared, one without siblings. No
        trees, where nothing is left or none is better than another; no metrics where nothing is left.
        """
        usable, alone = experience.usable(rows, fewest=2 if self.compares else 1)
        if not usable:
            return [], {}
        whole = self.round(plan, usable)
        metrics = metrics_of(whole) | combine.round_metrics([(dict(row.parts), row.why) for row in rows])
        metrics |= {"ungrouped": float(alone)}
        if self.online.resample is not None:
            metrics["resampled"] = float(replaced(plan.prompts, rows))
        facts = self.facts(usable, whole)
        masked = self.shaping.mask_truncated
        learned = [i for i, row in enumerate(usable) if row.stop != "length" or not masked]
        trees = grouped([usable[i] for i in learned], lambda place: facts[learned[place]])
        sorted_trees = [tree for tree in map(self.sort, trees) if tree is not None]
        return [replace(tree, index=i) for i, tree in enumerate(sorted_trees)], metrics

    def round(self, plan: RoundPlan, rows: list[Experience]) -> Round:
        """A round's rows as numbers, at the round's beta and on the scale that `normalise` asks for."""
        online = self.online.changed(beta=plan.beta)
        if self.shaping.normalise == "none":
            return Round(rows, online, self.shaping)
        so_far = self.shaping.normalise == "running"
        scale = self.history.scores(plan.number) if so_far else self.history.of(plan.number).scores
        return Round(rows, online, self.shaping, scale)

    def facts(self, rows: list[Experience], whole: Round) -> list[dict[str, tuple[float, ...]]]:
        """The numbers that objectives read of each response, by signal name."""
        advantage = ADVANTAGES[self.advantage](whole) if self.advantage else None
        returns = whole.forecast[1] if self.values else None
        out = []
        for i, row in enumerate(rows):
            n = len(row.response_ids)
            signals = {"old_logp_BT": row.policy_logp_T, "sampler_logp_BT": row.logp_T}
            signals["score_B"] = (float(whole.score[i]),)
            if advantage is not None:
                signals |= weighed(row, advantage[i, :n].tolist(), self.online.sampler_cap)
            if row.ref_logp_T:
                signals["ref_logp_BT"] = row.ref_logp_T
            if returns is not None:
                signals |= {"old_value_BT": row.value_T, "return_BT": tuple(returns[i, :n].tolist())}
            out.append(signals)
        return out
