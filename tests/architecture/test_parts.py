"""Every objective and stage keeps the rules of its signature."""

from __future__ import annotations

import pytest

from truing import registry

OBJECTIVES = registry.parts("objective")
STAGES = registry.parts("stage")
REWARDS = registry.parts("reward")
EVERY = [*OBJECTIVES.values(), *STAGES.values(), *REWARDS.values()]


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part.name)
def test_every_option_is_read(part):
    assert not part.unread, f"{part.file}:{part.line}: never read: {', '.join(part.unread)}"


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part.name)
def test_every_default_is_a_value_the_option_takes(part):
    for option in part.options:
        if not option.required:
            assert option.check(option.default) == option.default


@pytest.mark.parametrize("part", OBJECTIVES.values(), ids=lambda part: part.name)
def test_objectives_say_formula_source_and_deviation(part):
    assert part.source
    assert "Differs from the source" in part.doc
    assert ">>>" in part.doc
    assert "=" in part.doc


@pytest.mark.parametrize("part", OBJECTIVES.values(), ids=lambda part: part.name)
def test_signals_are_of_the_vocabulary(part):
    from truing.objectives.signals import SIGNALS

    assert set(part.needs) | set(part.optional) <= set(SIGNALS)


@pytest.mark.parametrize("part", OBJECTIVES.values(), ids=lambda part: part.name)
def test_source_and_run_time_agree(part):
    loaded = registry.load(part.name, "objective")
    for fact in (
        "needs",
        "optional",
        "options",
        "mean",
        "per",
        "surveyed",
        "estimates",
        "source",
        "differs",
        "lower_is_better",
    ):
        assert getattr(loaded, fact) == getattr(part, fact), fact
    assert (tuple(loaded.coupled), tuple(loaded.exempt.items())) == (part.coupled, part.exempt)


@pytest.mark.parametrize("part", STAGES.values(), ids=lambda part: part.name)
def test_stages_agree_too(part):
    loaded = registry.load(part.name, "stage")
    assert (loaded.options, loaded.gives, loaded.parts) == (part.options, part.gives, part.outputs)
    assert loaded.keeps == part.keeps


@pytest.mark.parametrize("part", REWARDS.values(), ids=lambda part: part.name)
def test_rewards_agree_too(part):
    loaded = registry.load(part.name, "reward")
    assert (loaded.options, loaded.scope, loaded.reads) == (part.options, part.scope, part.needs + part.optional)
