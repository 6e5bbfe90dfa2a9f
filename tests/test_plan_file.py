"""Plans from strangers: any text is a plan or one clear message, soon and in little memory."""

from __future__ import annotations

import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign.training.checks import prepare
from modalign.training.plan_file import read_plan

HOSTILE = {
    "unfolding": "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
    "holds itself": "name: &a [*a]\n",
    "deep": "name: " + "[" * 5000 + "]" * 5000,
    "code": "name: !!python/object/apply:os.system ['true']\n",
    "date": "name: 2001-99-99\n",
    "huge number": "seed: " + "9" * 6000 + "\n",
    "control": "name: \x00\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_plans_are_one_message(text: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(UserError):
        prepare(read_plan(file))


pieces = st.sampled_from(
    ["name", "data", "table", "stages", "align", "losses", "modalities", "&a", "*a", "<<", ": ", "- ", "\n", "  ",
     "{", "}", "[", "]", ", ", "'", '"', "!!", "|", "#", "1e3", "null", "~", "?", "%", "@", "\t", "é", "---"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces | st.text(string.printable, max_size=4), max_size=40))
def test_any_text_is_a_plan_or_one_message(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text("".join(parts), encoding="utf-8")
    with suppress(UserError):
        prepare(read_plan(file))
