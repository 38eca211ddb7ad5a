"""Works are numbered by the text that cites them."""

from __future__ import annotations

import re

import pytest

from perikarya.models.zoo import NETWORKS
from perikarya.report.references import REFERENCES, cite, numbered, works_on


def test_works_are_numbered_in_the_order_of_their_first_citation() -> None:
    texts, works = numbered([f"a{cite('focal')} b{cite('adam', 'focal')}", f"c{cite('smote')}, d{cite('adam')}"])
    assert texts == ["a [1] b [1, 2]", "c [3], d [2]"]
    assert works == [REFERENCES[key] for key in ("focal", "adam", "smote")]


def test_text_without_citations_stays_as_it_is() -> None:
    assert numbered(["nothing [1] here"]) == (["nothing [1] here"], [])


def test_an_unknown_work_is_an_error() -> None:
    with pytest.raises(KeyError, match="no reference is called kingma"):
        cite("kingma")


@pytest.mark.parametrize("arch", [name for name in NETWORKS.names() if NETWORKS.get(name).weights is not None])
def test_every_pretrained_network_of_the_zoo_has_a_work_to_cite(arch: str) -> None:
    assert works_on(arch)
    assert all(key in REFERENCES for key in works_on(arch))


def test_networks_of_our_own_cite_nothing() -> None:
    assert works_on("custom_cnn") == ()


@pytest.mark.parametrize("key", sorted(REFERENCES))
def test_a_reference_names_authors_and_year_and_a_well_formed_doi(key: str) -> None:
    work = REFERENCES[key]
    assert re.match(r"[A-ZŠŽ][\w-]+ [A-Z]+", work)
    assert re.search(r"\b(19|20)\d\d\b", work)
    if "doi:" in work:
        assert re.search(r" doi:10\.\d{4,5}/\S+[^.\s]$", work)
    assert "http" not in work
