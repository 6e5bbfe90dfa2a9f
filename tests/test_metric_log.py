"""metrics.jsonl: nothing written is lost, nothing rewound survives, every float comes back."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.training.metric_log import MetricLog, read_from, read_metrics

names = st.text(min_size=1, max_size=12)
entries = st.lists(
    st.tuples(names, st.integers(1, 10**9), st.dictionaries(names, st.floats(), max_size=4)), max_size=8
)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@settings(deadline=None, max_examples=60)
@given(entries)
def test_every_float_and_name_comes_back_and_every_line_is_strict_json(written):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        log = MetricLog(path)
        for entry in written:
            log.append(*entry)
        read = list(log.records())
        assert log.position == path.stat().st_size
        log.close()

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        lines = path.read_bytes().decode().split("\n")[:-1]
        assert len(lines) == len(written)
        for line in lines:
            json.loads(line, parse_constant=refuse)
    assert [(r["stage"], r["step"]) for r in read] == [(s, n) for s, n, _ in written]
    for record, (_, _, metrics) in zip(read, written, strict=True):
        assert record["time"] > 1_600_000_000_000  # unix milliseconds
        assert record["metrics"].keys() == metrics.keys()
        assert all(same(record["metrics"][k], v) for k, v in metrics.items())


@settings(deadline=None, max_examples=60)
@given(entries, st.data())
def test_rewinding_then_writing_again_is_as_if_never_written(written, data):
    keep = data.draw(st.integers(0, len(written)))
    with tempfile.TemporaryDirectory() as folder:
        log = MetricLog(Path(folder) / "metrics.jsonl")
        positions = [log.position]
        for entry in written:
            log.append(*entry)
            positions.append(log.position)
        log.rewind(positions[keep])
        assert log.position == positions[keep]
        for entry in written[keep:]:
            log.append(*entry)
        assert [(r["stage"], r["step"]) for r in log.records()] == [(s, n) for s, n, _ in written]


@pytest.mark.parametrize("torn", [b'{"stage": "a', b"x" * 200_000])
def test_a_torn_last_line_is_not_read_and_is_cut_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    log.append("a", 1, {"loss": 1.0})
    position = log.position
    log.close()
    with path.open("ab") as file:
        file.write(torn)
    assert [r["step"] for r in read_metrics(path)] == [1]
    log = MetricLog(path)
    assert log.position == position == path.stat().st_size
    log.append("a", 2, {"loss": 0.5})
    assert [r["step"] for r in log.records()] == [1, 2]
    log.rewind(position + 3)  # in the middle of a line: that line goes
    assert [r["step"] for r in log.records()] == [1]


def test_a_file_shorter_than_the_checkpoint_says_is_accepted_with_a_warning(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append("a", 1, {"loss": 1.0})
    with pytest.warns(UserWarning, match="lost"):
        log.rewind(log.position + 10)
    assert [r["step"] for r in log.records()] == [1]
    log.append("a", 2, {"loss": 1.0})
    assert [r["step"] for r in log.records()] == [1, 2]


def test_reading_on_from_an_offset_sees_only_complete_new_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_from(path, 0) == ([], 0)
    assert list(read_metrics(path)) == []
    log = MetricLog(path)
    log.append("a", 1, {"loss": 1.0})
    records, offset = read_from(path, 0)
    assert [r["step"] for r in records] == [1]
    assert offset == log.position
    with path.open("ab") as file:
        file.write(b'{"stage"')
    assert read_from(path, offset) == ([], offset)


def test_a_killed_process_loses_nothing_it_appended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import sys; from modalign.training.metric_log import MetricLog\n"
        "log = MetricLog(sys.argv[1]); step = 0\n"
        "while True:\n"
        "    step += 1; log.append('a', step, {'loss': 1.0}); print(step, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        for _ in range(200):
            said = int(process.stdout.readline())
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    steps = [r["step"] for r in read_metrics(path)]
    assert len(steps) >= said
    assert steps == list(range(1, len(steps) + 1))
