"""A component's name and arguments, as plans and spaces write them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modalign import UserError
from modalign.spec import Spec

plain = st.recursive(
    st.integers() | st.text("ab{} ") | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcdefg", min_size=1, max_size=3), plain, max_size=3))
def test_what_names_no_variable_stays_as_it_is(args):
    assert Spec("x", args).keywords() == args
    assert Spec.of(Spec("x", args).value()) == Spec("x", args)


def test_variables_are_replaced_wherever_strings_lie_and_only_when_used(monkeypatch, tmp_path):
    here = str(tmp_path / "$odd \\1")
    os.mkdir(here)
    monkeypatch.setenv("HERE", here)
    spec = Spec("x", {"graph": "${HERE}/g.npz", "more": [{"path": "${HERE}"}], "from": "$HERE"})
    assert spec.keywords() == {
        "graph": f"{here}/g.npz",
        "more": [{"path": here}],
        "from_": "$HERE",
    }
    assert spec.value()["graph"] == "${HERE}/g.npz"


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    spec = Spec("x", {"graph": "${NOWHERE}/g.npz"})
    assert spec.check(type("X", (), {"__init__": lambda self, graph: None})) == []
    with pytest.raises(UserError, match=r"x: graph is \$\{NOWHERE\}/g.npz.*export NOWHERE"):
        spec.keywords()


def test_what_is_no_path_is_not_told(monkeypatch):
    monkeypatch.setenv("TOKEN", "hf_abc")
    with pytest.raises(UserError, match="names nothing that is there") as error:
        Spec("x", {"model": "them/${TOKEN}"}).keywords()
    assert "hf_abc" not in str(error.value)
