"""A component's name and arguments, as plans and spaces write them."""

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


def test_variables_are_replaced_wherever_strings_lie_and_only_when_used(monkeypatch):
    monkeypatch.setenv("HERE", "/data/$odd \\1")
    spec = Spec("x", {"graph": "${HERE}/g.npz", "more": [{"path": "${HERE}"}], "from": "$HERE"})
    assert spec.keywords() == {
        "graph": "/data/$odd \\1/g.npz",
        "more": [{"path": "/data/$odd \\1"}],
        "from_": "$HERE",
    }
    assert spec.value()["graph"] == "${HERE}/g.npz"


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    spec = Spec("x", {"graph": "${NOWHERE}/g.npz"})
    assert spec.check(type("X", (), {"__init__": lambda self, graph: None})) == []
    with pytest.raises(UserError, match=r"x: graph is \$\{NOWHERE\}/g.npz.*export NOWHERE"):
        spec.keywords()
