"""Names, plans and addresses as MLflow may and should see them."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_length_limit, _validate_metric_name
from modalign.training.track.names import MAX_NAME, flatten, mlflow_name, redact

# Names made of the pieces that are treated specially are the likeliest to collide.
pieces = st.sampled_from(
    ["->", "@", "-", ">", " ", " to ", " at ", " x2f ", "x2f", "/", ".", "..", "a", "é", "%"]
)
names = st.lists(pieces, min_size=1, max_size=7).map("".join) | st.text(min_size=1, max_size=400)


@given(names)
def test_every_name_becomes_one_that_mlflow_takes(name):
    written = mlflow_name(name)
    _validate_metric_name(written)
    _validate_length_limit("name", MAX_NAME, written)
    assert written.isascii()


@given(names, names)
def test_two_names_never_become_one(a, b):
    assert (mlflow_name(a) == mlflow_name(b)) == (a == b)


def test_usual_names_stay_readable():
    assert mlflow_name("retrieval:audio->image/R@1") == "retrieval:audio to image/R at 1"
    for name in ("loss", "grad_norm", "parts/infonce", "stages.0.lr", "plugin.modalign-audio"):
        assert mlflow_name(name) == name


def test_long_names_that_differ_at_the_end_stay_apart():
    assert mlflow_name("a" * 300) != mlflow_name("a" * 299 + "b")


def test_a_plan_is_flattened_to_dotted_names():
    plan = {
        "name": "demo",
        "stages": [{"lr": 0.001, "align": ["image", "text"], "losses": {"infonce": 1.0}}, {"lr": 0.1}],
        "seed": None,
        "empty": {},
        "tasks": [],
    }
    assert dict(flatten(plan)) == {
        "name": "demo",
        "stages.0.lr": "0.001",
        "stages.0.align": '["image", "text"]',
        "stages.0.losses.infonce": "1.0",
        "stages.1.lr": "0.1",
        "seed": "None",
        "empty": "{}",
        "tasks": "[]",
    }


secrets = st.text(string.ascii_letters + string.digits + "!$%^*()_+-=@:.,", min_size=4, max_size=20)


@given(secrets)
def test_credentials_disappear_and_the_rest_stays(secret):
    text = redact(f"see https://user:{secret}@host:5000/path for more")
    assert text == "see https://***@host:5000/path for more"


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("postgresql://host/db?sslmode=on&password=hunter2", "postgresql://host/db?sslmode=on&password=***"),
        ("mail me@example.org", "mail me@example.org"),
        ("https://token@host", "https://***@host"),
        ("retrieval:audio->image/R@1", "retrieval:audio->image/R@1"),
    ],
)
def test_only_credentials_are_hidden(given_, shown):
    assert redact(given_) == shown
