"""The generated pages are what the code says today, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from truing import registry
from truing.plugins import run_file

DOCS = Path(__file__).parent.parent.parent / "docs"
tables = run_file(DOCS / "tables.py")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("name", tables.PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == tables.page(name), f"docs/{name} is stale: run `make docs`"


@pytest.mark.parametrize("name", tables.PAGES)
def test_every_link_leads_to_a_file(name: str) -> None:
    links = LINK.findall((DOCS / name).read_text(encoding="utf-8"))
    assert links and not [link for link in links if not (DOCS / link).is_file()]


@pytest.mark.parametrize("part", registry.parts("objective").values(), ids=lambda part: part.name)
def test_every_source_of_an_objective_is_indexed(part) -> None:
    index = (DOCS / "papers.md").read_text(encoding="utf-8").splitlines()
    for number in re.findall(r"arXiv (\S+\d)", part.source) or [part.source.partition("; ")[0]]:
        (row,) = [line for line in index if line.startswith(f"| {number}") or f"abs/{number})" in line]
        assert f"`{part.name}`" in row and Path(part.file).name in row and "tests/" in row


def test_every_source_has_code_and_a_test() -> None:
    for source in tables.sources().values():
        assert source.places and all((DOCS.parent / file).is_file() for _, file, _, _ in source.places)
        assert any(tables.tests_of(name, file) for name, file, _, _ in source.places), source.citation


def test_a_citation_is_found_by_its_number_whatever_stands_before_it() -> None:
    found: dict = {}
    tables.add(found, "Touvron et al. 2023, eq. 2, arXiv 2307.09288", "one", "a.py", "What.", "")
    tables.add(found, "margin: Llama 2, arXiv 2307.09288", "two", "a.py", "What.", "")
    tables.add(found, "Davidson 1970, JASA 65:317", "three", "a.py", "What.", "")
    assert [source.citation for source in found.values()] == [
        "Touvron et al. 2023, arXiv 2307.09288",
        "Davidson 1970, JASA 65:317",
    ]
    assert [(name, does) for name, _, does, _ in found["2307.09288"].places] == [
        ("one", "(eq. 2): What."),
        ("two", "What."),
    ]


def test_no_exemption_and_no_estimate_is_left_out() -> None:
    page = (DOCS / "objectives.md").read_text(encoding="utf-8")
    for part in registry.parts("objective").values():
        assert page.count(f"\n| `{part.name}` |") == 1
        assert part.estimates.replace("|", "\\|") in page
        assert all(f"- `{part.name}` from *{clause}*: {reason}." in page for clause, reason in part.exempt)


def test_the_names_of_objectives_are_those_that_python_offers() -> None:
    """By `__all__` an editor completes them, and the README counts them."""
    from truing import objectives

    assert set(objectives.__all__) == set(registry.parts("objective"))
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert f"lists {len(objectives.__all__)} objectives" in readme
