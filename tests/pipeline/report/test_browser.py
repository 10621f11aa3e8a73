"""The report and the training's page in a browser: on a desktop, on a phone, in the dark."""

import pytest

from pipeline.report.page import write_report, write_training_page
from tests.browser import CHROMIUM, Browser
from tests.pipeline.report.test_page import log_lines, make_sources  # noqa: F401

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WIDER = """[...document.querySelectorAll("body *")].filter(each => {
    const box = each.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1);
}).filter(each => !each.closest("svg") || each.tagName == "svg").map(each => each.outerHTML)"""

# Of what assistive technology takes for a picture: its name.
NAMES = """[...document.querySelectorAll(
    "svg, img, canvas, object, video, [role=img], [role=progressbar]")].map(each =>
        each.getAttribute("aria-label") || each.getAttribute("alt") || "")"""

# WCAG 2.2, 1.4.3: the ratio of the luminances of text and of what lies behind it.
CONTRASTS = """(() => {
    const numbers = color => color.match(/[\\d.]+/g).map(Number);
    const luminance = color => numbers(color).slice(0, 3).map(value => value / 255).map(
        value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4
    ).reduce((sum, value, n) => sum + value * [.2126, .7152, .0722][n], 0);
    const behind = each => {
        while (each) {
            const color = getComputedStyle(each).backgroundColor;
            if ((numbers(color)[3] ?? 1) == 1) return color;
            each = each.parentElement;
        }
        return "rgb(255, 255, 255)";
    };
    return [...document.querySelectorAll("body *")].filter(each => [...each.childNodes].some(
        node => node.nodeType == 3 && node.textContent.trim()) && !each.closest("style, script")
    ).map(each => {
        const style = getComputedStyle(each), text = each.closest("svg") ? style.fill : style.color;
        const both = [luminance(text), luminance(behind(each))].sort((a, b) => b - a);
        return [(both[0] + .05) / (both[1] + .05), each.outerHTML.slice(0, 200)];
    });
})()"""

FOCUSED = """(() => {
    const each = document.activeElement, box = each.getBoundingClientRect();
    return [each.tagName, each.getAttribute("href"), box.top >= 0 && box.bottom <= innerHeight,
            getComputedStyle(each).outlineStyle];
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(params=["report", "training", "ended"])
def page(request, tmp_path, make_sources):  # noqa: F811
    """The report, the page of a training that runs, and of one that has ended."""
    path = tmp_path / "page.html"
    if request.param == "report":
        sources = make_sources()
        # As real ones have them.
        sources.runs[0]["settings"] = {"training.a_name_that_is_long": "a/value/longer/" * 9}
        sources.receipts[0]["path"] = "tokens/" + "0123456789abcdef" * 4 + ".h5"
        write_report(sources, path)
    else:
        log = tmp_path / "log.jsonl"
        log.write_text(log_lines())
        runs = request.param == "training"
        write_training_page(
            log, path, share=0.5 if runs else 1, refresh_seconds=300 if runs else None,
            status="epoch 1, window 7/476, perplexity 142.1, 25,346 tokens/s, best validation 99")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 360])
def test_a_page_fits_is_readable_and_has_names_for_its_pictures(browser, page, width, dark):
    browser.errors.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(WIDER) == []
    assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == dark
    names = browser.evaluate(NAMES)
    assert len(names) >= 4 and all(names), names
    assert len(set(names)) == len(names)
    assert browser.evaluate("""[...document.querySelectorAll("svg")].every(
        each => each.getBoundingClientRect().height > 100)""")
    contrasts = browser.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert [each for each in contrasts if each[0] < 4.5] == []
    assert browser.errors == []


def test_all_that_can_be_used_is_reached_by_the_keyboard(browser, page):
    browser.open(page, width=390, dark=False)
    wanted = browser.evaluate("""[...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, [tabindex]"
    )].map(each => each.getAttribute("href"))""")
    assert wanted or "refresh" in page.read_text()
    found = []
    for _ in wanted:
        browser.press("Tab")
        tag, target, seen, outline = browser.evaluate(FOCUSED)
        assert tag == "A" and seen and outline != "none"
        found.append(target)
    assert found == wanted
    # Nothing scrolls by itself, where only a pointer reaches.
    assert browser.evaluate("""[...document.querySelectorAll("body *")].filter(
        each => !each.closest("svg") && each.scrollWidth > each.clientWidth + 1
            && /auto|scroll|hidden/.test(getComputedStyle(each).overflowX)).length""") == 0


def test_an_error_in_a_script_is_seen(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<img src=none.png><script>nothing()</script>")
    browser.errors.clear()
    browser.open(tmp_path / "bad.html", width=390, dark=False)
    assert len(browser.errors) == 2
    assert browser.evaluate(NAMES) == [""]
    browser.errors.clear()
