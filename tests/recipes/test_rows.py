"""A recipe whose base cannot attend by mask: trained, answering, measured; and the run says how it was read."""

import pyarrow.parquet as parquet
import pytest

from small_models import build_rows

RECIPE = """\
title: small
base: BASE
inputs: {data: pairs.jsonl}
stages:
  direct: {do: prefer, model: $base, data: $inputs.data, steps: 1, rows_per_step: 4, max_length: 128, gradient_checkpointing: true}
"""


@pytest.mark.parametrize("name", ["mamba", "gpt_neo"])
def test_a_base_of_rows(desk, name) -> None:
    build_rows(name, desk.folder / name)
    desk.write(RECIPE.replace("BASE", str(desk.folder / name)))
    assert desk.run() == 0, desk.said
    assert f"{name} cannot attend by mask: reading rows of responses" in desk.said
    samples = parquet.read_table(desk.out / "direct" / "samples.parquet").to_pylist()
    assert len(samples) == 8 and all(row["length"] > 0 for row in samples)
