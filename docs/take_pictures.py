"""Screenshots of the explorer and of reports for the documents, and an accessibility check.

Usage: python docs/take_pictures.py RUN [--table RUN] [--study PAGE.html] [--axe axe.min.js] [-o docs/img]

Needs the extra `app`, playwright, and Chromium (CHROMIUM, or /usr/bin/chromium). With axe-core (npm package axe-core)
it prints every serious or critical finding, and ends with 1 where there is one, or where a page writes an error.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PLAIN = {"width": 1100, "height": 900}
NARROW = {"width": 400, "height": 860}


@contextmanager
def browser() -> Iterator:
    """Chromium with an empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, tempfile.TemporaryDirectory() as profile:
        opened = play.chromium.launch_persistent_context(
            profile, executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS, headless=True
        )
        try:
            yield opened
        finally:
            opened.close()


class Watched:
    """A page whose errors, and whose requests to other machines, are kept."""

    def __init__(self, context, size: dict, dark: bool = False):
        self.page, self.faults = context.new_page(), []
        self.page.set_viewport_size(size)
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        self.page.on("console", lambda said: said.type == "error" and self.faults.append(said.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1")):
            self.faults.append(f"asks {request.url}")

    def axe(self, script: str | None) -> list[str]:
        """Serious and critical findings of axe-core on the page as it is now."""
        if script is None:
            return []
        self.page.evaluate(Path(script).read_text() + "; 0")
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{v['id']}: {v['help']} ({v['nodes'][0]['html'][:160]})"
            for v in found
            if v["impact"] in ("serious", "critical")
        ]


def report_pictures(context, pages: dict[str, Path], folder: Path, axe: str | None) -> list[str]:
    """Each page in the light, in the dark and narrow."""
    faults = []
    for name, path in pages.items():
        for kind, size, dark in (("", PLAIN, False), ("-dark", PLAIN, True), ("-narrow", NARROW, False)):
            seen = Watched(context, size, dark)
            seen.page.goto(path.resolve().as_uri())
            seen.page.screenshot(path=folder / f"{name}{kind}.png", full_page=kind == "")
            if name == "report-image" and kind == "":
                seen.page.locator("#where-the-code-helps figure").evaluate_all(
                    "all => all.forEach(f => f.style.margin = 0)"
                )
                seen.page.locator("#where-the-code-helps").screenshot(path=folder / "where-the-code-helps.png")
            faults += [f"{name}{kind}: {fault}" for fault in (*seen.faults, *seen.axe(axe))]
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            faults += [f"{name}{kind} is {wide} pixels wide"] if wide > size["width"] else []
            seen.page.close()
    return faults


def explorer_pictures(context, address: str, name: str, folder: Path, axe: str | None) -> list[str]:
    """Each tab of the explorer in the light, in the dark and narrow; of the last two the first tab alone is kept."""
    faults, tabs = [], []
    for kind, size, dark in (("", PLAIN, False), ("-dark", PLAIN, True), ("-narrow", NARROW, False)):
        seen = Watched(context, size, dark)
        seen.page.goto(address)
        seen.page.wait_for_selector("button[role=tab]")
        seen.page.wait_for_selector(".named", timeout=60_000)
        tabs = tabs or [one.inner_text() for one in seen.page.query_selector_all("button[role=tab]:visible")]
        for tab in tabs:
            if not (shown := seen.page.locator(f"button[role=tab]:visible:has-text('{tab}')")).count():
                seen.page.click(".overflow-menu > button")  # a narrow page has the last tabs in a menu
                shown = seen.page.locator(f".overflow-dropdown button:has-text('{tab}')")
            shown.click()
            seen.page.wait_for_timeout(1000)
            seen.page.wait_for_function("!document.body.innerText.includes('processing')", timeout=60_000)
            slug = tab.lower().replace(" ", "-")
            if kind == "" or tab == tabs[0]:
                seen.page.screenshot(path=folder / f"{name}-{slug}{kind}.png", full_page=True)
            faults += [f"{name} {tab}{kind}: {fault}" for fault in seen.axe(axe)]
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            faults += [f"{name} {tab}{kind} is {wide} pixels wide"] if wide > size["width"] else []
        faults += [f"{name}{kind}: {fault}" for fault in seen.faults]
        seen.page.close()
    return faults


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("run", type=Path)
    words.add_argument("--table", type=Path)
    words.add_argument("--study", type=Path)
    words.add_argument("--axe")
    words.add_argument("-o", "--out", type=Path, default=Path("docs/img"))
    asked = words.parse_args()

    from diffrep.pages import report
    from diffrep.pages.app import serve
    from diffrep.pages.explorer import Explorer

    asked.out.mkdir(parents=True, exist_ok=True)
    pages = {"report-image": report(asked.run)}
    pages |= {"report-table": report(asked.table)} if asked.table else {}
    pages |= {"report-study": asked.study} if asked.study else {}
    address = serve(Explorer.of(asked.run), port=7869, wait=False)
    with browser() as context:
        faults = report_pictures(context, pages, asked.out, asked.axe)
        faults += explorer_pictures(context, address, "explorer", asked.out, asked.axe)
    print("\n".join(faults) or "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
