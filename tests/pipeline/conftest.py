"""A recipe without mistakes, which tests spoil."""

from __future__ import annotations

import pytest

from truing.errors import RecipeError
from truing.recipe.check import check

GOOD = """\
title: a story
seed: 3
base: world:desk/tiny
inputs: {data: some/pairs}
stages:
  data: {do: split, data: $inputs.data, eval: 0.2}
  warm: {do: sft, model: $base, data: $data.train, epochs: 2, learning_rate: 3e-5}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval}
  direct: {do: prefer, model: $warm, data: $data.train, objective: [dpo, {nll: {weight: 0.1}}]}
  exam: {do: evaluate, models: [$direct, $rm], against: $warm, data: $data.eval, prompts: $data.eval, judge: $rm}
  release: {do: gate, evidence: $exam, rules: release.yaml}
expect:
  exam.direct.win_rate: [0.5, 1.0]
"""


RULES = "rules: [{check: win_rate, end: lower, min: 0.5}]\n"


@pytest.fixture(autouse=True)
def _rules(tmp_path):
    (tmp_path / "release.yaml").write_text(RULES, encoding="utf-8")


@pytest.fixture
def good(tmp_path):
    """The path of the recipe without mistakes."""
    path = tmp_path / "story.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.fixture
def mistakes(tmp_path):
    """The mistakes of the good recipe with one text replaced by another, without the file's name."""

    def of(old="", new="", overrides=()):
        assert old in GOOD
        path = tmp_path / "spoilt.yaml"
        path.write_text(GOOD.replace(old, new) if old else GOOD, encoding="utf-8")
        try:
            check(path, overrides)
        except RecipeError as problem:
            return [line.replace(f"{path}:", "") for line in problem.mistakes]
        return []

    return of
