"""The playground in a real browser; its accessibility is tested in tests/system."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.serving import KEY, Running

from ov_minilm import Embedder

SHOTS = "OV_MINILM_SHOTS"  # folder for screenshots


@pytest.fixture
def page(browser: Any, server: Running, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page after its first answer; all requests go to its own server, and no script fails."""
    page = browser.new_page(viewport={"width": getattr(request, "param", 1100), "height": 900})
    requested: list[str] = []
    failed: list[str] = []
    page.on("request", lambda sent: requested.append(sent.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda line: failed.append(line.text) if "Content Security" in line.text else None)
    page.goto(server.url)
    page.wait_for_selector("#result:not([hidden])")
    yield page
    if os.environ.get(SHOTS):
        page.screenshot(path=Path(os.environ[SHOTS], f"{request.node.name}.png"), full_page=True)
    page.close()
    assert [] == failed
    assert {server.url} == {"/".join(url.split("/")[:3]) for url in requested if not url.startswith("data:")}


@pytest.mark.parametrize("page", [390], indirect=True)
def test_similarities(page: Any, shipped: Embedder) -> None:
    """A cell is the cosine of two texts, the line below has the counts; the page fits a phone."""
    texts = page.input_value("#texts").split("\n")
    vectors = shipped.encode(texts)
    cells = [float(cell) for cell in page.locator("tbody td").all_inner_texts()]

    assert np.allclose(shipped.similarity(vectors, vectors).ravel(), cells, atol=0.00501)
    status = page.inner_text("#status")
    assert status.startswith(f"6 texts, {sum(shipped.count_tokens(texts))} tokens, 0 truncated, ")
    assert "ms on the server" in status
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_keyboard_and_messages(page: Any) -> None:
    """Tab, typing and Ctrl+Enter are enough; messages describe truncated, refused and missing texts."""
    page.focus("#texts")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("short\n" + "word " * 300)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#status:has-text('2 texts, 259 tokens')")

    assert "1 truncated" in page.inner_text("#status")
    assert 2 == page.locator("tbody tr").count()
    assert "302 tokens, too long" in page.locator("tbody th").nth(1).inner_text()
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"go", "truncate", "curl", "Python", "JavaScript", "snippet", "copy"} <= reached
    page.select_option("#truncate", "error")
    page.click("#go")
    page.wait_for_selector("#status:has-text('302 tokens')")
    page.fill("#texts", " \n")
    page.click("#go")
    assert "Enter at least one text." == page.inner_text("#status")
    assert "polite" == page.get_attribute("#status", "aria-live")  # screen readers read it out


def test_code_snippets(page: Any, server: Running) -> None:
    """A snippet has the server's address and the typed text with its quotes; curl gets vectors."""
    page.fill("#texts", 'it\'s "quoted" <b>&</b>')
    quoted = r"""it's \"quoted\" <b>&</b>"""

    curl = {"curl": "/v1", "curl, TEI": "/embed", "curl, Ollama": "/api/embed"}
    for language, path in (curl | {"Python": "/v1", "JavaScript": "/v1"}).items():
        button = page.get_by_role("button", name=language, exact=True)
        button.click()
        snippet = page.inner_text("#snippet")
        assert f"{server.url}{path}" in snippet
        assert (quoted.replace("'", r"'\''") if language in curl else quoted) in snippet
        assert "true" == button.get_attribute("aria-pressed")
        if language in curl:
            command = ["sh", "-c", snippet.replace("curl ", "curl --silent --fail ", 1)]
            assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_a_server_with_a_key(browser: Any, keyed_server: Running) -> None:
    """The page asks for the API key, and works after the key is entered; /docs needs no key."""
    page = browser.new_page()
    page.goto(keyed_server.url)
    page.wait_for_selector("#key-row:not([hidden])")
    page.wait_for_selector("#status:has-text('needs an API key: enter it here')")
    assert "alarm" not in (page.get_attribute("#status", "class") or "")
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert "Authorization: Bearer YOUR_KEY" in page.inner_text("#snippet")
    page.goto(f"{keyed_server.url}/docs")
    page.wait_for_selector("h2")
    text = page.inner_text("main")
    page.close()

    for word in "/v1/embeddings /v1/models/{model} encoding_format? Retry-After x-truncate".split():
        assert word in text
