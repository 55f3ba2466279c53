"""axe-core checks the web pages of the package in a real browser."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.serving import Running

from ov_minilm.measure import render
from ov_minilm.measure.render import Table

AXE = "axe-core@4.14.1"
REPORT = Table("Lists", ["", "texts/s"], [["ov_minilm", "1,000"], ["FP32", "300 (3.3×)"]], ["a machine"])


def install_axe_core(folder: Path) -> str:
    """Return the script of axe-core; skip the test if npm cannot install it."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", AXE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {AXE}: {done.stderr[-200:]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_pages_have_no_serious_accessibility_violation(tmp_path: Path, browser: Any, server: Running) -> None:
    """No finding is serious or critical, in dark mode on a phone and in light mode on a screen."""
    report, script, found = tmp_path / "report.html", install_axe_core(tmp_path), {}
    report.write_text(render.page("ov_minilm on this machine", ["Fast."], [REPORT]), encoding="utf-8")
    for url in (f"{server.url}/", f"{server.url}/docs", report.as_uri()):
        for scheme, width in (("dark", 390), ("light", 1100)):
            size = {"width": width, "height": 900}
            page = browser.new_page(viewport=size, color_scheme=scheme, bypass_csp=True)
            page.goto(url)
            page.wait_for_load_state("networkidle")
            page.evaluate(script)
            found[url, scheme] = [
                (violation["id"], violation["nodes"][0]["html"])
                for violation in page.evaluate("axe.run()")["violations"]
                if violation["impact"] in ("serious", "critical")
            ]

    assert (6, []) == (len(found), [one for violations in found.values() for one in violations]), found
