from __future__ import annotations

from pathlib import Path

import pytest

from perikarya.data.outlines import ClassMap
from perikarya.errors import ConfigError, DataError


def test_without_rules_a_class_stays_what_it_is() -> None:
    for text in (None, "", "  "):
        assert ClassMap.parse(text).label("Neuron", name="PN 1", group=2, colour="#ff0000") == "Neuron"
        assert ClassMap.parse(text).label(None, name="PN 1") is None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("Neuron: pyknotic=new", {"cls": "Neuron: pyknotic"}),
        ("class:Neuron=new", {"cls": "Neuron"}),
        ("class:group:2=new", {"cls": "group:2"}),
        ("group:2=new", {"group": 2}),
        ("group: 2 = new", {"group": "2"}),
        ("colour:#FF0000=new", {"colour": "#ff0000"}),
        ("colour:#f00=new", {"colour": "#FF0000"}),
        ("name:^PN=new", {"name": "PN 0012"}),
        (r"name:(?<=a)=b$=new", {"name": "xa=b"}),
    ],
)
def test_a_rule_gives_the_class(rule: str, said: dict) -> None:
    assert ClassMap.parse(rule).label(**{"cls": "other", **said}) == "new"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("Neuron=new", {"cls": "neuron"}),
        ("group:2=new", {"group": 12}),
        ("group:2=new", {"cls": "2"}),
        ("colour:#ff0000=new", {"colour": "#ff0001"}),
        ("name:^PN=new", {"name": "xPN"}),
        ("name:^PN=new", {"cls": "PN"}),
    ],
)
def test_a_rule_that_does_not_fit_leaves_the_class(rule: str, said: dict) -> None:
    said = {"cls": "other", **said}
    assert ClassMap.parse(rule).label(**said) == said["cls"]


def test_the_first_rule_that_fits_counts() -> None:
    rules = ClassMap.parse("name:^PN=pyknotic, group:1=normal, Neuron=intermediate")
    assert rules.label("Neuron", name="PN1", group=1) == "pyknotic"
    assert rules.label("Neuron", name="x", group=1) == "normal"
    assert rules.label("Neuron", name="x", group=3) == "intermediate"


def test_an_empty_right_side_takes_the_class_away() -> None:
    assert ClassMap.parse("Ignore*=").label("Ignore*") is None


def test_rules_that_fitted_nothing_are_told() -> None:
    rules = ClassMap.parse("a=b,c=d,name:x=e")
    rules.label("a")
    assert rules.unused() == ("c=d", "name:x=e")
    assert ClassMap.parse("a=b").unused() == ("a=b",)


def test_a_table_of_rules_may_hold_commas(tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    table.write_text('from,to\nNeuron,normal\n"name:^A{1,2}$",pyknotic\nIgnore*,\n')
    rules = ClassMap.parse(str(table))
    assert rules.label("Neuron") == "normal"
    assert rules.label(None, name="AA") == "pyknotic"
    assert rules.label("Ignore*") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a=b,c", "'c' is no rule"),
        ("=b", "does not say what becomes 'b'"),
        ("group:=b", "does not say what becomes 'b'"),
        ("colour:red=b", "'red' is no colour"),
        ("name:(=b", r"'\(' is not a regular expression"),
        ("a=b,a=c", "says twice what 'a' is"),
        ("a=b,class:a=c", "says twice what 'class:a' is"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ClassMap.parse(text)


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table at"):
        ClassMap.parse(str(tmp_path / "classes.csv"))
    table = tmp_path / "classes.csv"
    table.write_text("from,to\na,b,c\n")
    with pytest.raises(ConfigError, match=r"classes\.csv line 2 has 3 entries"):
        ClassMap.parse(str(table))
