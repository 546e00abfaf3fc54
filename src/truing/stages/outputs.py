"""The files that a stage writes for people: samples of a trained model, findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from truing import seals
from truing.data.trees import TreeDataset
from truing.disk import replacing
from truing.evaluate.exam import response_text
from truing.policy.policy import Policy
from truing.records import Finding
from truing.rollout.engine import Sampling, fits, generate
from truing.run.about import about
from truing.run.stage_run import StageRun
from truing.streams import derived

SAMPLES = 8


def write_samples(run: StageRun, policy: Policy, dataset: TreeDataset) -> None:
    """Write the trained model's responses to a few prompts of its own data: samples.parquet."""
    sampling = Sampling(seed=derived(run.seed, run.name, "samples"))
    prompts = [tree.prompt for tree in dataset.trees if fits(policy, tree.prompt, sampling)][:SAMPLES]
    rollouts = generate(policy, prompts, sampling)
    table = {
        "prompt": [policy.tokenizer.decode(p) for p in prompts],
        "response": [response_text(policy, r) for r in rollouts],
        "logp": [sum(r.logp_T) for r in rollouts],
        "length": [len(r.response_ids) for r in rollouts],
        "stop": [r.stop for r in rollouts],
    }
    with replacing(run.folder / "samples.parquet") as part:
        parquet.write_table(pa.table(table), part)


def write_findings(run: StageRun, findings: Sequence[Finding], examples: Sequence[Any] = ()) -> None:
    """Write findings.json with the hashes of what it is about, and examples.json where there are any."""
    names = sorted({f.model for f in findings})
    body = {"suite": run.name, "models": names, "findings": [f.as_json() for f in findings], "about": about(run)}
    run.write("findings.json", seals.sealed(body))
    if examples:
        run.write("examples.json", list(examples))
