"""Options of a stage that learns from its own responses and that its objective does not read; without torch, so that a
check says them too."""

from __future__ import annotations

from collections.abc import Iterator

from truing.records import Advantage
from truing.settings import KLControl, Online, Shaping


def unread(
    online: Online,
    shaping: Shaping,
    kl_control: KLControl,
    advantage: Advantage | None,
    imitates: bool,
    compares: bool,
    referred: bool,
) -> Iterator[tuple[str, str]]:
    """Every option that is set and has no effect on this objective, and why. `imitates`: it learns responses as they
    are; `compares`: it holds responses to one prompt against each other; `referred`: it, or KL control, reads a
    reference.

    >>> list(unread(Online(beta=0.1), Shaping(), KLControl(), None, False, True, True))
    [('beta', "'beta' has no effect on this objective, which does not read it; leave it out")]
    """
    readers = {
        "beta": (online, advantage not in (None, "none")),
        "gamma": (online, advantage in ("gae", "returns")),
        "gae_lambda": (online, advantage == "gae"),
        "sample_deviation": (online, advantage in ("standardised", "batch_centred", "batch_raw")),
        "passing": (online, imitates),
        "resample": (online, compares),
        "normalise": (shaping, advantage is not None),
        "clip_score": (shaping, advantage is not None),
        "sampler_cap": (online, advantage is not None),
    }
    for name, (group, read) in readers.items():
        if not read and getattr(group, name) != getattr(type(group)(), name):
            yield name, f"'{name}' has no effect on this objective, which does not read it; leave it out"
    readers_of_kl = {
        "kl_target": (online.beta > 0, "which moves beta: give beta, where it begins"),
        "kl_horizon": (kl_control.kl_target is not None, "without kl_target"),
        "refresh_reference": (
            referred or online.mixture > 0,
            "where no reference is read: give beta, or an objective that has one",
        ),
        "kl_limit": (referred or kl_control.stop_at_kl is not None, "where no KL is measured: give beta or stop_at_kl"),
    }
    for name, (read, why) in readers_of_kl.items():
        if not read and getattr(kl_control, name) != getattr(KLControl(), name):
            yield name, f"'{name}' has no effect here, {why}; or leave it out"
