"""The page: what it answers, whom it refuses, and a real browser that searches with it."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modalign
import numpy as np
import pyarrow.parquet as pq
import pytest
from modalign import Modality
from modalign.cli.main import main
from modalign.explore import Explorer, serve
from modalign.explore.server import Server
from modalign.search import Term, add, find, hits, identity, save_index, vector
from modalign.search.index import Index

from .conftest import digit_rows
from .test_search import train

pytest.importorskip("faiss")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None, reason="no Chromium or no playwright"
)
MARKUP = '<script>document.title="gone"</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def folder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space that knows the digits it was trained on."""
    return train(digits, tmp_path_factory.mktemp("run"), epochs=30)


@pytest.fixture
def explorer(folder: Path, digits: Path, tmp_path: Path) -> Explorer:
    space = modalign.load(folder)
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "<b>&.txt").write_text(MARKUP)
    found = find(space, [digits, tmp_path / "media"])
    return Explorer(space, add(space, Index(identity(folder), space.dim), found)[0])


@pytest.fixture
def server(explorer: Explorer) -> Iterator[Server]:
    server = serve(explorer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


Answer = tuple[int, dict[str, str], bytes]


def ask(server: Server, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
    connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def search(server: Server, **asked: Any) -> dict[str, Any]:
    status, _, content = ask(server, "/search", asked)
    assert status == (400 if "error" in json.loads(content) else 200)
    return json.loads(content)


def test_results_are_those_of_a_search(server, explorer):
    picture = digit_rows(1)[0]["image"]["bytes"]
    terms = [
        {"modality": "text", "value": "three"},
        {"modality": "image", "data": base64.b64encode(picture).decode(), "weight": -0.5},
    ]
    found = search(server, terms=terms, k=5, to=["image", "audio"])["results"]
    query = vector(explorer.space, [Term("text", "three"), Term("image", picture, -0.5)])
    expected = hits(explorer.index, query, 5, ["image", "audio"])
    assert list(found) == ["image", "audio"]
    for name, best in expected.items():
        assert [f["number"] for f in found[name]] == [hit.number for hit in best]
        assert [f["score"] for f in found[name]] == pytest.approx([hit.score for hit in best], abs=1e-4)
    (first,) = search(server, terms=[{"item": 7}], k=1, to=[explorer.index.items[7].modality])[
        "results"
    ].values()
    assert first[0]["score"] == pytest.approx(1, abs=1e-4)
    about = json.loads(ask(server, "/about")[2])
    assert about["modalities"][0] == {"name": "image", "literal": False, "items": 150}


def test_previews_are_what_the_modality_shows(server, explorer):
    kinds = set()
    for number, item in list(enumerate(explorer.index.items))[::25]:
        status, headers, content = ask(server, f"/items/{number}")
        reader = explorer.space.reader(item.modality)
        kinds.add(headers["Content-Type"].split("/")[0])
        assert status == 200
        assert "sandbox" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        if item.modality == "image":
            row = pq.read_table(item.place.file)["image"][item.place.row].as_py()["bytes"]
            assert reader.read(content).equal(reader.read(row))
    assert kinds == {"image", "audio", "text"}
    number = next(i for i, item in enumerate(explorer.index.items) if "<b>" in item.place.file)
    status, headers, content = ask(server, f"/items/{number}")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert content.decode() == MARKUP


def test_a_modality_without_preview_or_with_an_unsafe_one(server, explorer, monkeypatch):
    reader = explorer.space.reader(explorer.index.items[0].modality)
    monkeypatch.setattr(type(reader), "preview", Modality.preview)
    assert ask(server, "/items/0")[0] == 204
    for unsafe in (("text/html", b"<script>"), ("image/png; x", b"x"), ("text/plain\r\nA: b", b"x")):
        monkeypatch.setattr(type(reader), "preview", lambda self, item, unsafe=unsafe: unsafe)
        assert ask(server, "/items/0")[0] == 204
    monkeypatch.setattr(type(reader), "preview", lambda self, item: 1 / 0)
    assert ask(server, "/items/0")[0] == 500
    assert ask(server, "/about")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/items/99999", "/items/-1", "/items/0x1", "/items/", "/items/1/..", "/items/../../etc/passwd",
     "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.py", "/server.py", "//etc/passwd",
     "/items/" + "9" * 30, "/items/%31"],
)  # fmt: skip
def test_only_indexed_items_are_served(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest("GET", path)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"root:" not in answer.read()


def test_an_item_that_has_gone(server, explorer):
    number = next(i for i, item in enumerate(explorer.index.items) if "<b>" in item.place.file)
    Path(explorer.index.items[number].place.file).unlink()
    status, _, content = ask(server, f"/items/{number}")
    assert status == 404
    assert b"changed" in content


@pytest.mark.parametrize("path", ["/", "/about", "/items/0", "/page.js"])
def test_other_hosts_and_sites_are_refused(server, path):
    port = server.server_port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        "localhost",
        f"127.0.0.1.evil:{port}",
        "",
    ):
        assert ask(server, path, Host=host)[0] == 403, host
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        assert ask(server, path, Origin=origin)[0] == 403, origin
    assert ask(server, path, Origin=f"http://127.0.0.1:{port}", Host=f"localhost:{port}")[0] == 200
    assert ask(server, path)[1]["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not any(name.lower().startswith("access-control") for name in ask(server, path)[1])


def test_queries_of_other_sites_and_sizes(server):
    query = json.dumps({"terms": [{"item": 0}]}).encode()
    json_ = {"Content-Type": "application/json"}
    assert ask(server, "/search", query, **json_)[0] == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(server, "/search", query, **{"Content-Type": kind})[0] == 404
    assert ask(server, "/search", query, **json_, Origin="http://evil.example")[0] == 403
    assert ask(server, "/search", b"x", **json_, **{"Content-Length": str(10**12)})[0] == 413
    assert ask(server, "/search", b"x", **json_, **{"Content-Length": "-1"})[0] == 413
    assert ask(server, "/search", method="OPTIONS")[0] == 501


@pytest.mark.parametrize(
    "asked",
    [
        [], "x", None, {}, {"terms": []}, {"terms": [1]}, {"terms": [{}]}, {"terms": [{"item": "0"}]},
        {"terms": [{"item": 10**9}]}, {"terms": [{"item": -1}]}, {"terms": [{"item": True}]},
        {"terms": [{"item": 0, "weight": "1"}]}, {"terms": [{"item": 0, "weight": float("nan")}]},
        {"terms": [{"item": 0}], "k": 0}, {"terms": [{"item": 0}], "k": 10**9},
        {"terms": [{"item": 0}], "combine": "mean"}, {"terms": [{"item": 0}], "to": ["imge"]},
        {"terms": [{"item": 0}], "to": [1]}, {"terms": [{"item": 0}], "to": "image"},
        {"terms": [{"modality": "text", "value": 1}]}, {"terms": [{"modality": "text", "value": " "}]},
        {"terms": [{"modality": "image", "value": "/etc/passwd"}]},
        {"terms": [{"modality": "image", "data": "/etc/passwd"}]},
        {"terms": [{"modality": "image", "data": "bm8gcGljdHVyZQ=="}]},
        {"terms": [{"modality": "no-such", "value": "x"}]},
        {"terms": [{"item": 0}, {"item": 0, "weight": -1}]},
    ],
)  # fmt: skip
def test_wrong_queries_are_told_so(server, asked):
    status, _, content = ask(
        server, "/search", json.dumps(asked).encode(), **{"Content-Type": "application/json"}
    )
    assert status == 400
    assert json.loads(content)["error"]


def test_what_is_no_json(server):
    for body in (b"{", b"\xff", b"[" * 100_000):
        assert ask(server, "/search", body, **{"Content-Type": "application/json"})[0] == 400


def test_wrong_input_on_the_command_line(folder, in_tmp, capsys):
    assert main(["explore", str(folder)]) == 2
    assert "modalign search" in capsys.readouterr().err
    save_index(Index(identity(folder), 16), in_tmp / "index")
    assert main(["explore", str(folder), "--index", "index"]) == 2
    assert "nothing is indexed" in capsys.readouterr().err


def test_the_command_serves_and_ends(folder, explorer, server, in_tmp, capsys):
    save_index(explorer.index, in_tmp / "index")
    port = str(server.server_port)
    assert main(["explore", str(folder), "--index", "index", "--port", port]) == 2
    assert f"port {port}" in capsys.readouterr().err
    code = "import sys; from modalign.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "explore", str(folder), "--index", "index", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = process.stdout.readline().strip()
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        connection.request("GET", "/")
        assert b"<title>modalign explore" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture
def page(server: Server) -> Iterator[Any]:
    """A page of a real browser that fails the test if it logs an error or leaves this machine."""
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        home = f"http://127.0.0.1:{server.server_port}/"
        ours = (home, "data:")
        page.on("request", lambda r: None if r.url.startswith(ours) else problems.append(r.url))
        page.goto(home)
        page.get_by_label("value").wait_for()
        yield page
        browser.close()
    assert not problems


def cards(page: Any, modality: str) -> list[int]:
    found = page.locator(f"section[data-modality={modality}] article")
    return [int(n) for n in found.evaluate_all("cards => cards.map(card => card.dataset.number)")]


def until(page: Any, script: str, arg: Any = None) -> None:
    """Waits until something is so; the page's policy forbids playwright's own way."""
    for _ in range(200):
        if page.evaluate(script, arg):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never so: {script}")


def share(explorer: Explorer, numbers: list[int], label: int) -> float:
    """How many of the items lie in rows of that class."""
    rows = digit_rows()
    return float(np.mean([rows[explorer.index.items[n].place.row]["label"] == label for n in numbers]))


@needs_browser
@pytest.mark.slow
def test_a_query_typed_in_the_page_finds_pictures_and_sounds(page, explorer):
    page.get_by_label("value").fill("three")
    page.keyboard.press("Enter")
    page.locator("section[data-modality=audio] audio").first.wait_for()
    expected = hits(explorer.index, vector(explorer.space, [Term("text", "three")]), 12)
    for name in ("image", "text", "audio"):
        assert cards(page, name) == [hit.number for hit in expected[name]]
    for name in ("image", "audio"):
        assert share(explorer, cards(page, name)[:5], 3) > 0.5  # chance: 0.1
    until(page, "[...document.querySelectorAll('.preview img')].filter(i => i.naturalWidth).length == 12")
    until(page, "[...document.querySelectorAll('audio')].filter(a => a.duration > 0.1).length == 12")
    assert page.evaluate("document.querySelector('audio').play().then(() => 'plays', String)") == "plays"
    assert "three" in page.locator("section[data-modality=text] .preview").first.inner_text()

    page.get_by_label("image").uncheck()  # by a picture of a seven that it finds, only sounds and names
    seven = next(n for n in explorer.index.numbers["image"] if share(explorer, [n], 7))
    row = digit_rows()[explorer.index.items[seven].place.row]
    page.get_by_label("modality").select_option("image")
    page.get_by_label("value").set_input_files(
        {"name": "7.png", "mimeType": "image/png", "buffer": row["image"]["bytes"]}
    )
    page.get_by_role("button", name="Search").click()
    until(page, "!document.querySelector('section[data-modality=image]')")
    query = vector(explorer.space, [Term("image", row["image"]["bytes"])])
    assert cards(page, "audio") == [h.number for h in hits(explorer.index, query, 12)["audio"]]


@needs_browser
@pytest.mark.slow
def test_parts_added_and_taken_away_in_the_page(page, explorer):
    page.get_by_label("value").fill("three")
    page.keyboard.press("Enter")
    page.locator("section[data-modality=audio] audio").first.wait_for()
    before = cards(page, "image")
    picture, sound = before[0], cards(page, "audio")[1]
    page.locator(f"article[data-number='{picture}']").get_by_text("similar").click()
    page.locator("#terms img").wait_for()
    until(page, f"document.querySelector('article').dataset.number == {picture}")
    page.locator(f"article[data-number='{sound}'] button").last.click()
    page.locator("#terms audio").wait_for()
    page.get_by_label("weight").last.fill("0.5")
    page.get_by_role("button", name="Search").click()
    asked = [{"item": picture}, {"item": sound, "weight": -0.5}]
    expected = [f["number"] for f in explorer.search({"terms": asked})["results"]["audio"]]
    until(page, 
        "e => JSON.stringify([...document.querySelectorAll('section[data-modality=audio] article')]"
        ".map(c => Number(c.dataset.number))) == JSON.stringify(e)", expected,
    )  # fmt: skip
    page.get_by_label("weight").last.fill("1")
    page.get_by_label("remove").last.click()
    page.get_by_label("remove").last.click()
    page.get_by_role("button", name="Search").click()
    until(page, "document.getElementById('status').textContent.includes('type something')")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_indexed_is_markup_and_all_can_be_read(page, explorer, scheme):
    page.emulate_media(color_scheme=scheme)
    page.get_by_label("value").fill(MARKUP)
    page.keyboard.press("Enter")
    shown = page.locator("section[data-modality=text] .preview").first
    until(page, "document.querySelector('section[data-modality=text] .preview p')")
    assert shown.inner_text() == MARKUP
    assert page.title() == "modalign explore"
    assert page.locator(".place", has_text="<b>&.txt").count() == 1
    contrast = """e => {
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(x => x / 255).map(
        x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return .2126*r + .7152*g + .0722*b; };
      const ground = e => { const c = getComputedStyle(e).backgroundColor;
        return /, 0\\)$/.test(c) ? ground(e.parentElement) : c; };
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05); }"""
    for part in (
        "h1",
        "h1 span",
        ".place",
        ".score",
        ".preview p",
        "#status",
        "h2 small",
        "label",
        "#search",
    ):
        assert page.locator(part).first.evaluate(contrast) >= 4.5, part  # WCAG 2.2, AA
