"""Over-optimisation on a space that can be listed: the way of the natural policy gradient, every figure exact.

An answer has a merit q and a padding x, independent normals under the start. Gold is q - x^2/4; the reward models see
q + b x with b of 1, 0.6 and 0.3. Without KL control the way is the tilts of the start by t: gold above its start is
t - b^2 t^2/4, the KL is (1 + b^2) t^2/2. So with b = 1, d = t and gold is d (1 - d/4): it turns at a KL of 4.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from truing.diagnose.curve import Curve, Series
from truing.diagnose.overoptimisation import diagnose
from truing.objectives import kl
from truing.objectives.policy import reinforce
from truing.rewards.scoring import aggregated

LINE = np.linspace(-8, 8, 33)
MERIT, PADDING = (v.ravel() for v in np.meshgrid(LINE, LINE, indexing="ij"))
START = torch.tensor(-(MERIT**2 + PADDING**2) / 2).log_softmax(0)
GOLD = torch.tensor(MERIT - PADDING**2 / 4)
MEMBERS = np.stack([MERIT + b * PADDING for b in (1.0, 0.6, 0.3)])


def way(proxy, beta=0.0, updates=80, every=5, rate=0.05):
    """The curve of a policy that is taught by the `reinforce` objective over all answers at once: its gradient is the
    exact one, and divided by the probabilities the natural one."""
    proxy, logits, looks = torch.tensor(proxy), START.clone().requires_grad_(), []
    for update in range(updates + 1):
        logp = logits.log_softmax(0)
        p = logp.exp().detach()
        if update % every == 0:
            looks.append((update, kl.exact(logp.detach(), START), p @ proxy, p @ GOLD))
        score = proxy - beta * (logp.detach() - START)
        (p * reinforce(logp, score - p @ score)).sum().backward()
        with torch.no_grad():
            logits -= rate * logits.grad / p
        logits.grad = None
    at, distance, said, true = (tuple(map(float, column)) for column in zip(*looks, strict=True))
    error = np.full(len(at), 0.01)
    proxy, gold = Series(np.array(said), error), Series(np.array(true), error)
    return Curve("policy", "start", "rl", tuple(map(int, at)), np.array(distance), proxy, gold, 1000)


def told(curve):
    found = diagnose(curve)
    return found, {f.check: f.value for f in found.findings}


def test_the_proxy_rises_and_gold_turns_where_theory_says() -> None:
    curve = way(MEMBERS[0])
    found, value = told(curve)
    assert (np.diff(curve.proxy.mean) > 0).all() and value["proxy_gained"] == pytest.approx(8, abs=0.01)
    assert (found.word, value["overoptimised"]) == ("turns", 1.0)
    assert value["gold_peak_kl_nats"] == pytest.approx(4, abs=0.01)
    assert value["gold_lost_after_peak"] == pytest.approx(1, abs=0.01)
    assert value["gold_gained"] == pytest.approx(0, abs=0.01)  # all of it, d = 4


def test_the_form_of_best_of_n_describes_that_way_exactly() -> None:
    exact = way(MEMBERS[0])
    noise = np.random.default_rng(0).normal(0, 0.01 * 1000**0.5, (1000, len(exact.at)))
    prompts = replace(exact, gold=Series.of(exact.gold.mean + noise - noise.mean(0)))
    fit, other = (diagnose(replace(prompts, form=form)).fit for form in ("best_of", "rl"))
    assert (fit.alpha, fit.beta, fit.peak, fit.start) == pytest.approx((1, 0.25, 2, -0.25), abs=0.01)
    assert other.misfit > 10 > fit.misfit and fit.describes and not other.describes


def test_a_larger_beta_ends_before_the_turn() -> None:
    ends = []
    for beta in (0.0, 0.5, 1.0):
        found, value = told(way(MEMBERS[0], beta))
        ends.append((value["last_kl_nats"], value["gold_lost_after_peak"], found.word))
    (far, most, _), (middle, none, word), (near, nothing, last) = ends
    assert far > 4 > middle > near
    assert most > 0.9 and none == nothing == 0 and word == last == "rises"


def test_the_worst_of_an_ensemble_loses_less_than_their_mean_and_one_alone() -> None:
    lost = {how: told(way(aggregated(MEMBERS, how), updates=200))[1] for how in ("worst", "mean")}
    alone = told(way(MEMBERS[0], updates=200))[1]
    assert lost["worst"]["gold_gained"] > lost["mean"]["gold_gained"] > alone["gold_gained"]
    assert lost["worst"]["gold_lost_after_peak"] < lost["mean"]["gold_lost_after_peak"] < alone["gold_lost_after_peak"]
