"""The explorer in a real browser: `make test-pages`. Skipped where Chromium, playwright or gradio are not there."""

import io
import json
import os
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hostile import no_pictures
from runs_at_hand import SMALL, diffrep, run_of

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
pytest.importorskip("playwright")
pytest.importorskip("gradio")
if not os.environ.get("DIFFREP_BROWSER"):
    pytest.skip("a browser test: run `make test-pages`", allow_module_level=True)

PORT = 7872


@pytest.fixture(scope="module")
def address():
    """An explorer that listens."""
    from diffrep.pages.app import serve
    from diffrep.pages.explorer import Explorer

    return serve(Explorer.of(run_of("vae-vdm")), port=PORT, wait=False).rstrip("/")


@pytest.fixture(scope="module")
def context():
    """A browser."""
    import take_pictures

    with take_pictures.browser() as opened:
        yield opened


def test_every_tab_answers_and_nothing_complains(address, context, tmp_path):
    """No error on the console, no request to another machine, a picture of each tab."""
    import take_pictures

    axe = os.environ.get("AXE")
    assert take_pictures.explorer_pictures(context, address, "x", tmp_path, axe) == []
    assert len(list(tmp_path.glob("*.png"))) == 8


def bare(folder: Path) -> Path:
    """A run that nobody measured."""
    run = shutil.copytree(run_of("vae-vdm"), folder / "run")
    for file in run.glob("*.json"):
        if file.name not in ("config.json", "data.json"):
            file.unlink()
    return run


def measured(folder: Path) -> Path:
    """A run with everything measured."""
    run = shutil.copytree(run_of("vae-vdm"), folder / "run")
    for words in (("evaluate", run, "--levels", 1), ("probe", run), ("profile", run, "--levels", 4, "-n", 40)):
        assert diffrep(*words) == 0
    return run


def table(folder: Path) -> Path:
    """A run on a table with words and gaps."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(80, 2)).round(2)
    rows = [f"{a},{b},{'pq'[i % 2]},{'xy'[i // 2 % 2]}" for i, (a, b) in enumerate(numbers)]
    (folder / "table.csv").write_text("\n".join(["one,two,town,label", ",0.5,p,x", *rows]))
    assert diffrep("train", "--data", folder / "table.csv", "--method", "vae-vdm", "--out", folder / "run", *SMALL) == 0
    return folder / "run"


def study(folder: Path) -> Path:
    """The page of a small benchmark, whose table is wide."""
    words = ("--methods", "ae,vae", "--budget", "64ex", "--seeds", 1, "--levels", 1, "-o", folder / "study")
    assert diffrep("benchmark", "--data", "digits", *words, *SMALL[2:]) == 0
    return folder / "study" / "report.html"


@pytest.mark.parametrize("made", [bare, measured, table, study], ids=lambda made: made.__name__)
def test_a_page_has_no_fault(made, context, tmp_path):
    """In the light, in the dark and on a phone: no error, no request, nothing wider than the window, none for axe."""
    import take_pictures
    from diffrep.pages import report

    (tmp_path / "of").mkdir()
    page = made(tmp_path / "of")
    page = page if page.suffix else report(page)
    assert take_pictures.report_pictures(context, {"r": page}, tmp_path, os.environ.get("AXE")) == []


def test_the_map_of_codes_is_used_by_keys(context, tmp_path):
    """The map can be focused; an arrow goes to the nearest dot on that side and shows its words; Escape hides them."""
    from diffrep.pages import report

    page = context.new_page()
    page.goto(report(run_of("vae-vdm"), tmp_path / "report.html").as_uri())
    page.focus("svg[data-map]:visible")
    assert page.inner_text(".tip:visible")
    place = "dots => dots.map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value])"
    dots = np.array(page.eval_on_selector_all("svg[data-map]:visible .dot", place))
    for key, way in (("Left", (-1, 0)), ("Right", (1, 0)), ("Up", (0, -1)), ("Down", (0, 1))) * 2:
        (before,) = page.eval_on_selector_all(".dot.here", place)
        page.keyboard.press(f"Arrow{key}")
        (after,) = page.eval_on_selector_all(".dot.here", place)
        off = dots - before
        ahead, aside = off @ way, abs(off @ way[::-1])
        on_side = off[(ahead > 0) & (ahead >= aside)]
        nearest = min(np.hypot(*on_side.T), default=0.0)  # it stays where there is none on that side
        assert np.hypot(*np.subtract(after, before)) == pytest.approx(nearest)
        assert nearest == 0 or np.subtract(after, before) @ way > 0
        assert page.inner_text(".tip:visible")
    page.keyboard.press("Escape")
    assert not page.query_selector(".tip:visible")
    page.close()


def test_the_explorer_is_used_by_keys_alone(address, context):
    """Tab reaches the examples and the tabs; an arrow goes to the next example, and to the next tab."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".named", timeout=60_000)
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(at => at.getAttribute('role') || at.type || at.tagName)(document.activeElement)"))
    assert {"range", "tab", "submit"} <= reached or {"range", "tab", "button"} <= reached, reached
    page.focus("input[type=range] >> nth=0")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.name-of-row').innerText.includes('1')", timeout=30_000)
    page.focus("button[role=tab]:has-text('Noise')")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=denoised with the code", timeout=60_000)
    page.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/file=/etc/passwd",
        "/static/../../../etc/passwd",
        "/gradio_api/file=pyproject.toml",
    ],
)
def test_no_other_file_is_served(address, path):
    """A visitor reads what the page shows, and no file of the machine."""
    try:
        with urllib.request.urlopen(address + path, timeout=20) as answer:
            said = answer.read()
    except urllib.error.HTTPError as refused:
        said = refused.read()
    assert b"root:" not in said and b"[project]" not in said and b"Traceback" not in said


def given(file: Path, address: str, context):
    """The page of a visitor who gave this file as a picture of their own."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".named", timeout=60_000)
    page.click("text=Your own picture")
    page.set_input_files("input[type=file]", file)
    return page


def test_a_hostile_file_is_refused_on_the_page(address, context, tmp_path):
    """A file that is no picture shows one sentence, and the page goes on."""
    (tmp_path / "bad.png").write_bytes(b"PK\x03\x04 not a picture")
    page = given(tmp_path / "bad.png", address, context)
    page.wait_for_selector("text=cannot be read", timeout=30_000)
    assert "Traceback" not in page.content() and str(tmp_path) not in page.content()
    page.close()


def sent(address: str, name: str, encoded: bytes) -> Path:
    """Where the explorer keeps an uploaded file of that name; raises HTTPError where it refuses."""
    head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + encoded + b"\r\n--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", body, kind), timeout=60) as said:
        return Path(json.loads(said.read())[0])


def png(pixels: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize(
    "name", ["../../../escaped.png", "/escaped.png", "..%2F..%2Fescaped.png", "a/../../escaped.png"]
)
def test_a_path_in_the_name_of_a_file_leads_nowhere(name, address):
    """An uploaded file lies in a folder of its own below the folder for uploads, whatever its name says."""
    root = Path(os.environ.get("GRADIO_TEMP_DIR", Path(tempfile.gettempdir()) / "gradio")).resolve()
    place = sent(address, name, png(np.zeros((8, 8), np.uint8))).resolve()
    assert place.is_relative_to(root) and place.parent.parent == root, place


def test_an_upload_beyond_the_limit_is_not_kept(address):
    """It is refused before it is decoded."""
    from diffrep.pages.explorer import MOST_BYTES

    with pytest.raises(urllib.error.HTTPError) as refused:
        sent(address, "big.png", bytes(MOST_BYTES + 1))
    assert refused.value.code == 413


def test_a_thousand_uploads_leave_a_page_that_answers(address, context):
    """Each is another picture; then a visitor still sees the example, and the newest upload can be looked at."""
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 8, 8), dtype=np.uint8)
    places = {sent(address, "mine.png", png(one)) for one in pixels}
    assert len(places) == 1000
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".named", timeout=60_000)
    page.close()


def test_two_visitors_see_each_their_own(address, context, tmp_path):
    """What one uploads is not shown to the other, who looks at a test example in the meantime."""
    (tmp_path / "white.png").write_bytes(png(np.full((8, 8), 255, np.uint8)))
    pages = [context.new_page() for _ in range(2)]
    for page in pages:
        page.goto(address)
    for page in pages:
        page.wait_for_selector(".named", timeout=60_000)
    pages[0].click("text=Your own picture")
    pages[0].set_input_files("input[type=file]", tmp_path / "white.png")
    pages[1].fill("input[type=number] >> nth=0", "3")
    pages[1].press("input[type=number] >> nth=0", "Enter")
    pages[0].wait_for_selector(".named:has-text('your own')", timeout=60_000)
    pages[1].wait_for_timeout(2000)
    shown = [page.inner_text(".named >> nth=0") for page in pages]
    assert "your own" in shown[0] and "your own" not in shown[1]
    for page in pages:
        assert not page.query_selector("text=Traceback")
        page.close()


@pytest.mark.parametrize("name", ["zip", "svg", "huge"])
def test_a_file_that_is_no_picture_is_one_sentence_on_the_page(name, address, context, tmp_path):
    """A zip and an SVG named .png, and a picture of 30,000 x 30,000 pixels: a message, and the page goes on."""
    (tmp_path / "sent.png").write_bytes(no_pictures()[name])
    page = given(tmp_path / "sent.png", address, context)
    page.wait_for_selector(".toast-body", timeout=60_000)
    said = page.inner_text(".toast-body")
    assert re.search("cannot be read|30000x30000", said) and "Traceback" not in said and str(tmp_path) not in said
    page.close()
