"""The explorer in a real browser: `make test-pages`. Skipped where Chromium, playwright or gradio are not there."""

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from runs_at_hand import run_of

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


def test_reports_have_no_fault(context, tmp_path):
    """In the light, in the dark and on a phone: no error, no request, nothing wider than the window."""
    import take_pictures
    from diffrep.pages import report

    page = report(run_of("vae-vdm"), tmp_path / "report.html")
    assert take_pictures.report_pictures(context, {"r": page}, tmp_path, os.environ.get("AXE")) == []


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


def test_a_hostile_file_is_refused_on_the_page(address, context, tmp_path):
    """A file that is no picture shows one sentence, and the page goes on."""
    (tmp_path / "bad.png").write_bytes(b"PK\x03\x04 not a picture")
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".named", timeout=60_000)
    page.click("text=Your own picture")
    page.set_input_files("input[type=file]", tmp_path / "bad.png")
    page.wait_for_selector("text=cannot be read", timeout=30_000)
    assert "Traceback" not in page.content() and str(tmp_path) not in page.content()
    page.close()
