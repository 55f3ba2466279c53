"""The playground in a real browser: what people see, with a keyboard, on a phone, in the dark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.serving import Running, running

from ov_minilm import Embedder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = "OV_MINILM_SHOTS"  # a folder that keeps the pictures, to look at


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server without a key."""
    with running("--access-log", "off") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, as the machine has it."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Running, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page after its first answer; it asked nobody but its own server, and no script failed."""
    look = {"viewport": {"width": 1100, "height": 900}} | getattr(request, "param", {})
    context = browser.new_context(**look)
    page = context.new_page()
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda line: failed.append(line.text) if "Content Security" in line.text else None)
    page.goto(server.url)
    page.wait_for_selector("#result:not([hidden])")
    yield page
    if os.environ.get(SHOTS):
        page.screenshot(path=Path(os.environ[SHOTS], f"{request.node.name}.png"), full_page=True)
    context.close()
    assert [] == failed
    assert {server.url} == {"/".join(url.split("/")[:3]) for url in asked if not url.startswith("data:")}


def test_similarities_are_those_of_the_vectors(page: Any, shipped: Embedder) -> None:
    """Each cell shows the cosine of its two texts; the line below says tokens, truncated, milliseconds."""
    texts = page.input_value("#texts").split("\n")
    vectors = shipped.encode(texts)
    cells = [float(cell) for cell in page.locator("tbody td").all_inner_texts()]

    assert np.allclose(shipped.similarity(vectors, vectors).ravel(), cells, atol=0.00501)
    said = page.inner_text("#said")
    assert said.startswith(f"6 texts, {sum(shipped.count_tokens(texts))} tokens, 0 truncated, ")
    assert "ms on the server" in said


def test_the_keyboard_is_enough(page: Any) -> None:
    """Tab to the texts, type, Ctrl+Enter; a long text is counted as cut; Tab reaches every control."""
    page.focus("#texts")
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("short\n" + "word " * 300)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#said:has-text('2 texts, 259 tokens')")

    assert "1 truncated" in page.inner_text("#said")
    assert 2 == page.locator("tbody tr").count()
    assert "302 tokens, too long" in page.locator("tbody th").nth(1).inner_text()
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"go", "truncate", "curl", "Python", "JavaScript", "snippet", "copy"} <= reached


def test_nothing_to_embed_is_said(page: Any) -> None:
    """An empty field, and a text that is refused, are told in words that a screen reader reads."""
    page.fill("#texts", " \n")
    page.click("#go")
    assert "Enter at least one text." == page.inner_text("#said")

    page.fill("#texts", "word " * 300)
    page.select_option("#truncate", "error")
    page.click("#go")
    page.wait_for_selector("#said:has-text('302 tokens')")
    assert "polite" == page.get_attribute("#said", "aria-live")


def test_snippets_are_what_was_typed(page: Any, server: Running) -> None:
    """Curl in each of the three APIs, Python and JavaScript, with this server's address and quotes kept."""
    page.fill("#texts", 'it\'s "quoted" <b>&</b>')

    for language, quoted, path in (
        ("curl", r"""it'\''s \"quoted\" <b>&</b>""", "/v1"),
        ("curl, TEI", r"""it'\''s \"quoted\" <b>&</b>""", "/embed"),
        ("curl, Ollama", r"""it'\''s \"quoted\" <b>&</b>""", "/api/embed"),
        ("Python", r"""it's \"quoted\" <b>&</b>""", "/v1"),
        ("JavaScript", r"""it's \"quoted\" <b>&</b>""", "/v1"),
    ):
        button = page.get_by_role("button", name=language, exact=True)
        button.click()
        snippet = page.inner_text("#snippet")
        assert f"{server.url}{path}" in snippet
        assert quoted in snippet
        assert "true" == button.get_attribute("aria-pressed")


def test_the_snippets_of_curl_work(page: Any) -> None:
    """Each, pasted into a shell, gives vectors."""
    for language in ("curl", "curl, TEI", "curl, Ollama"):
        page.get_by_role("button", name=language, exact=True).click()
        command = page.inner_text("#snippet").replace("curl ", "curl --silent --fail ", 1)
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)  # noqa: S607
        assert 0 == done.returncode, command
        assert len(json.loads(done.stdout)) > 0


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 390, "height": 800}},
        {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"},
    ],
    ids=["light", "dark"],
    indirect=True,
)
def test_a_phone_shows_it_all(page: Any) -> None:
    """At 390 pixels nothing but the table and the snippet scrolls sideways, and text can be read."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


@pytest.mark.parametrize("page", [{}, {"color_scheme": "dark"}], ids=["light", "dark"], indirect=True)
def test_words_stand_out_from_their_ground(page: Any) -> None:
    """Contrast is 4.5 or more, for text on the page and in every cell of the heat map, in both modes."""
    ratios = page.evaluate("""() => {
      const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
      const light = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((one) =>
          one / 255 <= 0.03928 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (node) => {
        const color = getComputedStyle(node).backgroundColor;
        return color === "rgba(0, 0, 0, 0)" && node.parentElement ? ground(node.parentElement) : color;
      };
      return [...document.querySelectorAll("h1, label, .faint, output, td, th, pre, a, button")]
        .filter((node) => node.textContent.trim() && node.offsetParent)
        .map((node) => {
          const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
          return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.trim().slice(0, 20)];
        });
    }""")

    assert len(ratios) > 60
    assert [] == [one for one in ratios if one[0] < 4.5]


def test_a_key_is_asked_for_when_it_is_needed(browser: Any) -> None:
    """With --api-key the page says so, and works when the key is typed."""
    with running("--api-key", "key") as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("#key-row:not([hidden])")
        page.wait_for_selector("#said:has-text('needs an API key: enter it here')")
        assert "alarm" not in (page.get_attribute("#said", "class") or "")
        page.fill("#key", "key")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result:not([hidden])")
        assert "Authorization: Bearer YOUR_KEY" in page.inner_text("#snippet")
        page.close()


def test_docs_list_every_url(browser: Any, server: Running) -> None:
    """The page that describes the API shows paths, fields and answers from openapi.json."""
    page = browser.new_page()
    page.goto(f"{server.url}/docs")
    page.wait_for_selector("h2")

    text = page.inner_text("main")
    for word in (
        "POST /v1/embeddings",
        "GET /v1/models/{model}",
        "encoding_format?",
        "Retry-After",
        "x-truncate",
    ):
        assert word in text
    page.close()
