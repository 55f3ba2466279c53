"""The pages that the package makes, judged by axe-core in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support.serving import running

from ov_minilm.measure import render
from ov_minilm.measure.render import Table

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = "axe-core@4.14.1"
REPORT = Table("Lists", ["", "texts/s"], [["ov_minilm", "1,000"], ["FP32", "300 (3.3×)"]], ["a machine"])


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, as npm installs it."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", AXE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {AXE}: {done.stderr[-200:]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The server's pages and the report of bench."""
    report = tmp_path_factory.mktemp("report") / "report.html"
    report.write_text(render.page("ov_minilm on this machine", ["Fast."], [REPORT]), encoding="utf-8")
    with running("--access-log", "off") as server:
        yield {"playground": f"{server.url}/", "docs": f"{server.url}/docs", "report": report.as_uri()}


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1100, "light")])
def test_no_serious_finding(axe: str, urls: dict[str, str], scheme: str, width: int) -> None:
    """By day and by night, on a phone and on a screen, axe-core has no serious or critical finding."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    found: dict[str, list[Any]] = {}
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, url in urls.items():
            size = {"width": width, "height": 900}
            page = browser.new_page(viewport=size, color_scheme=scheme, bypass_csp=True)
            page.goto(url)
            page.wait_for_load_state("networkidle")
            page.evaluate(axe)
            found[name] = [
                (one["id"], one["nodes"][0]["html"])
                for one in page.evaluate("axe.run()")["violations"]
                if one["impact"] in ("serious", "critical")
            ]
        browser.close()

    assert {name: [] for name in urls} == found
