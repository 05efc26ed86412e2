"""The page of a study after its finals in a real browser: from a phone to a wide screen, in light and in dark."""

import itertools

import pytest

from search.report import write_report
from tests.end_to_end.browser import CHROMIUM, Browser

WIDTHS = (390, 768, 1920)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no browser: install chromium")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def address(finalized):
    return write_report(finalized).resolve().as_uri()


def show(browser, address, width, scheme="light"):
    """Open the page on a screen, and wait until its figures are drawn."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(address)
    drawn = "document.querySelectorAll('.plotly-graph-div .main-svg').length"
    every = "document.querySelectorAll('.plotly-graph-div').length"
    browser.wait_for(f"document.readyState == 'complete' && {every} > 8 && {drawn} >= {every}")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(browser, address, width):
    show(browser, address, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    wide = """[...document.querySelectorAll('section, header, p, .figure')].filter(e => !e.closest('.wide'))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(wide) == []


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = css => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] == 255) return color;
    }
  };
  const found = SELECTORS.map(selector => {
    const ratios = [...document.querySelectorAll(selector)].filter(e => !e.closest('.paper')).map(e => {
      const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
      const [a, b] = [light(rgba(ink)), light(behind(e))].sort((x, y) => y - x);
      return (a + .05) / (b + .05);
    });
    return [selector, Math.min(...ratios)];
  });
  return Object.fromEntries(found.filter(([_, ratio]) => !(ratio >= 4.5)));
})()"""
"""What has less than 4.5 to 1, as WCAG 2.1 asks of text (1.4.3), or is not on the page."""
TEXT = [".answer", ".sure li", "p.soft", ".note", "td", ".heat td", "nav a", "nav h2", "thead th", ".xtick text"]


@pytest.mark.parametrize(("width", "scheme"), list(itertools.product((390, 1920), ("light", "dark"))))
def test_text_stands_out_from_the_page(browser, address, width, scheme):
    show(browser, address, width, scheme)
    assert browser.evaluate(CONTRAST.replace("SELECTORS", str(TEXT))) == {}


def test_the_answer_and_how_sure_it_is_are_seen_without_scrolling_on_a_desk(browser, address):
    show(browser, address, 1920)
    assert browser.evaluate("document.querySelector('nav').getBoundingClientRect().top") < 900


def test_every_entry_of_the_contents_leads_to_a_section_that_can_be_seen(browser, address):
    show(browser, address, 390)
    lost = """[...document.querySelectorAll('nav a')].filter(a => {
        const target = document.querySelector(a.getAttribute('href'));
        return !target || target.getBoundingClientRect().height < 20; }).map(a => a.href)"""
    assert browser.evaluate(lost) == []
    assert browser.evaluate("document.querySelectorAll('nav a').length") > 15
