"""The loop: resume, micro-batches, terms with their own counts, what stops it, what it writes."""

import json
import math

import pytest
import torch

import bounds
from small_models import build, exact
from truing import registry, seals
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed, UserError
from truing.objectives import bradley_terry, dpo, nll
from truing.policy import heads
from truing.policy.load import load
from truing.policy.reference import Reference, cached, compute
from truing.schema.signature import group_options
from truing.settings import Training
from truing.signals.observe import HEADS, SOURCES, observe
from truing.train.fit import fit
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import SCHEDULES, Optim, rate
from truing.train.record.metrics import Record
from truing.train.source import DataSource

TEXT = [
    "the desk grants a refund within thirty days",
    "no refund is due, the rule says so",
    "please ask for the order",
] * 5


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return build("llama", TEXT, tmp_path_factory.mktemp("small"), vocab=300)


@pytest.fixture(scope="session")
def trees():
    """Ragged pairs: prompts of 3 to 12 tokens, responses of 1 to 14."""
    generator = torch.Generator().manual_seed(5)

    def ids(low: int, high: int) -> tuple[int, ...]:
        n = int(torch.randint(low, high, (), generator=generator))
        return tuple(torch.randint(10, 300, (n,), generator=generator).tolist())

    def branch(role: str) -> Branch:
        words = ids(1, 15)
        return Branch(role, words, (True,) * len(words))

    return tuple(Tree(ids(3, 13), (branch("chosen"), branch("rejected")), i, i + 1) for i in range(20))


def terms(*objectives):
    return WeightedObjectives([Term(o, {}, 0.1 if o is nll else 1.0) for o in objectives])


def training(**more) -> Training:
    return Training(**({"epochs": 2, "rows_per_step": 6, "learning_rate": 1e-3, "tokens_per_device": 4096} | more))


def run(folder, trees, out, options, objective, stop_after=None):
    """Train; with `stop_after` the process "dies" in that step, after its checkpoint was due."""
    policy = load(str(folder))
    source = DataSource(trees, options)
    reference = compute(policy, trees, options.tokens_per_device)
    optim = Optim(policy.model, options, source.steps)
    record = Record(out, key="k", every=options.checkpoint_every)
    if stop_after is not None:
        step = optim.step

        def dying(number):
            if number > stop_after:
                raise KeyboardInterrupt
            return step(number)

        optim.step = dying
    try:
        fit(policy, source, objective, optim, record, reference)
    except KeyboardInterrupt:
        assert stop_after is not None
    return policy


def weights(policy):
    return {n: p.detach().clone() for n, p in policy.model.named_parameters()}


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stop_after", [1, 2, 4, 5, 7])
def test_resumed_is_uninterrupted_bitwise(folder, trees, tmp_path, stop_after) -> None:
    """Stopped in either epoch, on a checkpoint and between two: the same weights, bit for bit, and the same metrics."""
    options = training(checkpoint_every=2)
    whole = run(folder, trees, tmp_path / "a", options, terms(dpo, nll))
    run(folder, trees, tmp_path / "b", options, terms(dpo, nll), stop_after=stop_after)
    again = run(folder, trees, tmp_path / "b", options, terms(dpo, nll))
    for (name, one), two in zip(weights(whole).items(), weights(again).values(), strict=True):
        assert torch.equal(one, two), name
    rows = [[{k: v for k, v in r.items() if k != "seconds"} for r in metrics(tmp_path / x)] for x in "ab"]
    assert rows[0] == rows[1]
    assert [r["step"] for r in rows[0]] == list(range(1, 9))


@pytest.mark.parametrize("part", ["model", "optim"])
def test_resume_needs_all_of_the_state(folder, trees, tmp_path, part) -> None:
    """A perturbed weight or moment shows in the result: the equality above can fail."""
    from safetensors.torch import load_file, save_file

    from truing.train.record import checkpoint

    options = training(checkpoint_every=4)
    whole = run(folder, trees, tmp_path / "a", options, terms(dpo))
    run(folder, trees, tmp_path / "b", options, terms(dpo), stop_after=4)
    path = tmp_path / "b" / "checkpoints" / "step-00000004" / f"{part}-0.safetensors"
    tensors = load_file(path)
    name = next(n for n in sorted(tensors) if tensors[n].ndim == 2)
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, path)
    manifest = path.with_name("manifest.json")
    facts = json.loads(manifest.read_text())
    facts["files"][path.name][0] = checkpoint.file_digest(path)
    manifest.write_text(json.dumps(seals.sealed(facts)))
    again = run(folder, trees, tmp_path / "b", options, terms(dpo))
    assert any(not torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(again).values(), strict=True))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder, trees, tmp_path) -> None:
    options = training(checkpoint_every=2)
    whole = run(folder, trees, tmp_path / "a", options, terms(dpo))
    run(folder, trees, tmp_path / "b", options, terms(dpo), stop_after=5)
    newest = tmp_path / "b" / "checkpoints" / "step-00000004" / "model-0.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[-7] ^= 1
    newest.write_bytes(raw)
    record = Record(tmp_path / "b", key="k")
    policy = load(str(folder))
    optim = Optim(policy.model, options, 8)
    record.begin(policy, optim, 8)
    assert record.step == 2
    assert record.messages == ["step-00000004 is damaged (model-0.safetensors)"]
    again = run(folder, trees, tmp_path / "b", options, terms(dpo))
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(again).values(), strict=True))


def test_a_checkpoint_of_another_recipe_is_refused(folder, trees, tmp_path) -> None:
    run(folder, trees, tmp_path, training(checkpoint_every=2), terms(dpo), stop_after=3)
    policy = load(str(folder))
    with pytest.raises(UserError, match="belongs to another recipe or other data"):
        Record(tmp_path, key="other").begin(policy, Optim(policy.model, training(), 8), 8)


def on_pairs():
    """Every built-in objective on pairs that the loop has all signals for."""
    found = {n: p for n, p in registry.parts("objective").items() if {"chosen_logp_B"} <= set(p.needs) <= set(SOURCES)}
    return tuple(registry.load(name, "objective") for name in found)


@pytest.mark.parametrize(
    "objective", [(dpo,), (nll,), (dpo, nll), on_pairs()], ids=["dpo", "nll", "dpo+nll", "every one on pairs"]
)
def test_micro_batch_1_equals_8(folder, trees, tmp_path, objective) -> None:
    """The same step in one part and tree by tree: loss and gradients equal within fp64's rounding, ragged lengths and
    all."""
    policy = load(str(folder))
    policy.verified = True  # transformers' own attention, the measure, takes its softmax in fp32
    exact(policy.model)
    reference = compute(policy, trees, 4096)
    both = terms(*objective)
    batch = Batch(trees[:8])
    counts = both.counts(batch)
    found = []
    for size in (1, 10**6):
        policy.model.zero_grad()
        losses, sizes = 0.0, 0.0
        for part in batch.split(size):
            loss, shares = both.total(observe(policy, part, both.signals, reference), counts)
            loss.backward()
            losses, sizes = losses + loss.item(), sizes + sum(map(abs, shares.values()))
        found.append((losses, sizes, {n: p.grad.clone() for n, p in policy.model.named_parameters()}))
    assert len(list(batch.split(1))) == 8 and len(list(batch.split(10**6))) == 1
    off = bounds.relative(policy.model, batch.tokens, torch.float64)
    (split, _, ours), (whole, size, theirs) = found
    assert split == pytest.approx(whole, abs=off * size, rel=0)
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).abs().max() <= off * largest, name


def test_a_column_that_some_rows_lack_changes_nothing_in_parts(folder, trees, tmp_path) -> None:
    """Margins on half of the rows: a part without any is read as margin 0, and the loop goes on."""
    import dataclasses

    some = tuple(dataclasses.replace(t, values={"margin_B": 1.0} if t.index < 3 else {}) for t in trees[:6])
    losses = []
    for size in (16, 4096):
        policy = heads.fresh_reward(str(folder), seed=0)
        options = training(rows_per_step=6, steps=1, epochs=1, tokens_per_device=size)
        record = Record(tmp_path / str(size))
        fit(policy, DataSource(some, options), terms(bradley_terry), Optim(policy.model, options, 1), record)
        losses.append(metrics(tmp_path / str(size))[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_parameter_without_a_gradient_survives_a_resume(folder, trees, tmp_path) -> None:
    policy = load(str(folder))
    policy.model.register_parameter("spare", torch.nn.Parameter(torch.ones(2)))
    options = training(steps=2, epochs=1, checkpoint_every=1)
    optim = Optim(policy.model, options, 2)
    fit(policy, DataSource(trees, options), terms(nll), optim, Record(tmp_path, every=1))
    fresh = Optim(policy.model, options, 2)
    fresh.restore(optim.state())
    assert fresh.state().keys() == optim.state().keys()
    assert not any(name.startswith("spare/") for name in optim.state())
    with pytest.raises(RunFailed, match="optimiser state of elsewhere, which the model has not"):
        fresh.restore({"elsewhere/step": torch.ones(())})


def test_two_terms_of_one_objective_are_both_recorded(folder, trees, tmp_path) -> None:
    both = WeightedObjectives([Term(dpo, {}), Term(dpo, {"beta": 5.0})])
    run(folder, trees, tmp_path, training(steps=2, epochs=1), both)
    row = metrics(tmp_path)[1]
    assert row["dpo"] != row["dpo_2"] and row["loss"] == pytest.approx(row["dpo"] + row["dpo_2"])


def test_each_term_is_divided_by_its_own_count(folder, trees, tmp_path) -> None:
    """[dpo, nll] on ragged lengths: rows for dpo, the chosen responses' tokens for nll, over the whole step."""
    policy = load(str(folder))
    reference = compute(policy, trees, 4096)
    both, batch = terms(dpo, nll), Batch(trees[:8])
    tokens = sum(len(t.branches[0].ids) for t in batch.trees)
    assert both.counts(batch).tolist() == [8.0, float(tokens)]
    signals = observe(policy, batch, both.signals, reference)
    parts = list(batch.split(1))
    total = sum(both.total(observe(policy, p, both.signals, reference), both.counts(batch))[0].item() for p in parts)
    mean_dpo = dpo(**{n: signals[n] for n in dpo.signals}).mean().item()
    mean_nll = -(signals["chosen_logp_B"].sum() / tokens).item()
    assert total == pytest.approx(mean_dpo + 0.1 * mean_nll, abs=1e-6)
    lengths = {len(t.branches[0].ids) for t in batch.trees}
    assert len(lengths) > 3, "equal lengths would agree for a wrong count too"


def test_the_loss_falls_and_the_record_says_how(folder, trees, tmp_path) -> None:
    run(folder, trees, tmp_path, training(epochs=6, learning_rate=3e-3), terms(dpo))
    rows = metrics(tmp_path)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["loss"] < 0.45 and rows[-1]["accuracy"] == 1.0
    first = DataSource(trees, training()).epoch(0)[0]
    assert rows[0]["tokens"] == sum(2 * len(t.prompt) + sum(len(b.ids) for b in t.branches) for t in first)
    assert {"step", "seconds", "tokens", "rows", "loss", "grad_norm", "learning_rate", "margin_nats"} <= set(rows[0])


def test_a_reward_model_learns(folder, trees, tmp_path) -> None:
    policy = heads.fresh_reward(str(folder), seed=1)
    options = training(epochs=8)
    source = DataSource(trees, options)
    fit(policy, source, terms(bradley_terry), Optim(policy.model, options, source.steps), Record(tmp_path))
    rows = metrics(tmp_path)
    assert rows[-1]["accuracy"] == 1.0 and rows[-1]["loss"] < 0.2 < rows[0]["loss"]


def test_nan_stops_before_the_update(folder, trees, tmp_path) -> None:
    policy = load(str(folder))
    reference = compute(policy, trees, 4096)
    before = weights(policy)
    broken = Reference(torch.full_like(reference.logp, float("nan")), reference.offsets)
    source = DataSource(trees, training())
    optim = Optim(policy.model, training(), source.steps)
    with pytest.raises(RunFailed, match=r"differ from its reference's by nan nats a token .* before any update"):
        fit(policy, source, terms(dpo), optim, Record(tmp_path), broken)

    with torch.no_grad():
        policy.model.lm_head.weight[5] = float("nan")
    before = weights(policy)
    with pytest.raises(RunFailed, match=r"step 1: the loss is not a number on data rows .*; the model was not updated"):
        fit(policy, source, terms(nll), optim, Record(tmp_path))
    after = weights(policy)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(before.values(), after.values(), strict=True))
    assert metrics(tmp_path) == []


def test_an_infinite_gradient_stops_before_the_update(folder, trees, tmp_path) -> None:
    policy = load(str(folder))
    optim = Optim(policy.model, training(), 8)
    before = weights(policy)
    for p in policy.model.parameters():
        p.grad = torch.full_like(p, float("inf"))
    with pytest.raises(RunFailed, match="step 3: the gradient is not finite; the model was not updated"):
        optim.step(3)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(policy).values(), strict=True))


def test_step_one_is_checked_against_the_reference(folder, trees, tmp_path) -> None:
    policy = load(str(folder))
    reference = compute(policy, trees, 4096)
    with torch.no_grad():
        policy.model.model.embed_tokens.weight.mul_(1.05)
    source = DataSource(trees, training())
    with pytest.raises(RunFailed, match="the reference belongs to other weights"):
        fit(policy, source, terms(dpo), Optim(policy.model, training(), source.steps), Record(tmp_path), reference)


def test_reference_cache_from_other_weights_is_refused(folder, trees, tmp_path) -> None:
    policy = load(str(folder))
    path = tmp_path / "reference.safetensors"
    first = cached(policy, trees, path, 4096)
    second = cached(policy, trees, path, 4096)
    assert torch.equal(first.logp, second.logp)
    with torch.no_grad():
        policy.model.model.norm.weight.mul_(1.5)
    with pytest.raises(
        UserError, match=r"come from other weights \(weights: \w+ there, \w+ here\).\n  Delete the file"
    ):
        cached(policy, trees, path, 4096)
    with pytest.raises(UserError, match="come from other weights and data"):
        cached(policy, trees[:5], path, 4096)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"this reference cannot be read .*\n  Delete it to have it computed again"):
        cached(policy, trees, path, 4096)


def test_the_reference_does_not_depend_on_how_it_is_batched(folder, trees) -> None:
    policy = load(str(folder))
    assert torch.allclose(compute(policy, trees, 1).logp, compute(policy, trees, 10**6).logp, atol=bounds.LOGP)


def test_data_order_depends_on_seed_and_epoch_alone(trees) -> None:
    def order(step: int, **more):
        return [[t.index for t in b.trees] for _, b in DataSource(trees, training(**more)).since(step)]

    assert order(0) == order(0) and order(3) == order(0)[3:]
    assert order(0) != order(0, seed=1) and order(0)[:4] != order(0)[4:]
    for epoch in (order(0)[:4], order(0)[4:]):
        assert sorted(i for step in epoch for i in step) == list(range(20))


def test_steps_and_fractional_epochs(trees) -> None:
    assert DataSource(trees, training(epochs=0.5)).steps == 2
    assert DataSource(trees, training(epochs=1.25)).steps == 5
    source = DataSource(trees, training(steps=11))
    assert [n for n, _ in source.since(0)] == list(range(1, 12))


def test_tokens_per_step_bounds_computed_tokens(trees) -> None:
    source = DataSource(trees, training(tokens_per_step=60, rows_per_step=None))
    for _, batch in source.since(0):
        assert batch.tokens <= 60 or len(batch.trees) == 1


def test_schedules_by_hand() -> None:
    cosine = Training(learning_rate=2.0, warmup=0.0, schedule="cosine")
    assert [rate(cosine, s, 4) for s in (1, 2, 3, 4)] == pytest.approx(
        [2.0, 1 + math.cos(math.pi / 4), 1.0, 1 - math.cos(math.pi / 4)]
    )
    constant = Training(learning_rate=2.0, warmup=0.5, schedule="constant")
    assert [rate(constant, s, 4) for s in (1, 2, 3, 4)] == [1.0, 2.0, 2.0, 2.0]


def test_every_signal_can_be_observed_or_is_owed() -> None:
    """OWED is what the loop owes the objectives; whoever adds a source takes its name off. A statistic of a step is
    made by its objective and has no source."""
    from truing.objectives.signals import SIGNALS
    from truing.records import OWED

    observable = {name for name, signal in SIGNALS.items() if signal.origin != "step"}
    assert set(SOURCES) | set(HEADS) == observable - OWED and observable >= OWED


def test_every_schedule_that_an_option_may_name_has_a_curve() -> None:
    schedule = next(option for option in group_options(Training, {}) if option.name == "schedule")
    assert set(schedule.choices) == set(SCHEDULES)
    for name in schedule.choices:
        training = Training(learning_rate=1.0, warmup=0.0, schedule=name)
        assert rate(training, 1, 10) == 1.0
