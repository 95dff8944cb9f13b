"""The attention explorer in Chromium: its numbers against torch, its keyboard, its files."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from llm_from_scratch.widgets import AttentionExplorer
from tests.browser.views import HOSTILE, SENTENCE, attention_view, softmax

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"


def cell(page, row, column):
    return page.locator("td.cell").nth(row * len(SENTENCE) + column)


def spoken(page):
    page.wait_for_timeout(250)
    return page.locator("[aria-live=polite]").text_content()


@pytest.fixture
def page(open_widgets):
    view, scores = attention_view()
    page = open_widgets(view)
    page.scores = scores
    return page


def test_softmax_equals_torch(page):
    torch.manual_seed(1)
    rows = [torch.randn(13, dtype=torch.float64) * scale for scale in (1, 30, 1e4)]
    rows.append(torch.tensor([1e4, -1e4, 0.0, 1e4 - 1, -torch.inf], dtype=torch.float64))
    rows.append(torch.tensor([-torch.inf, -1e4, -1e4 + 0.5], dtype=torch.float64))
    rows.append(torch.tensor([-torch.inf, 3.0, -torch.inf], dtype=torch.float64))
    for row in rows:
        found = page.evaluate(f"(row) => {API}.softmax(row)", row.tolist())
        assert torch.allclose(torch.tensor(found, dtype=torch.float64), row.softmax(-1), rtol=0, atol=1e-6)
    assert page.evaluate(f"() => {API}.softmax([-Infinity, -Infinity])") == [0, 0]
    masked = page.evaluate(f"(row) => {API}.softmax(row, (j) => j < 5)", rows[0].tolist())
    expected = torch.cat([rows[0][:5].softmax(-1), torch.zeros(8, dtype=torch.float64)])
    assert torch.allclose(torch.tensor(masked, dtype=torch.float64), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_mask_switch_recomputes_the_softmax(page, causal):
    box = page.get_by_label("Causal mask")
    assert box.is_checked()
    box.set_checked(causal)
    for layer in range(2):
        for head in range(3):
            page.evaluate(f"([layer, head]) => {API}.show({{ layer, head }})", [layer, head])
            found = torch.tensor(page.evaluate(f"() => {API}.weights()"), dtype=torch.float64)
            expected = softmax(page.scores, causal=causal)[layer, head]
            # The scores travel as int16: steps of range / 65534, here 2e-4.
            assert torch.allclose(found, expected, rtol=0, atol=1e-4)
    note = page.locator(".note").first
    assert note.is_visible() is not causal
    assert page.locator("td.cell.masked").count() == (21 if causal else 0)


def test_selectors_and_map_choose_the_head(page):
    page.get_by_label("Layer", exact=True).select_option("1")
    page.get_by_label("Head", exact=True).select_option("2")
    assert page.get_by_role("radio", name="Layer 1, head 2").get_attribute("aria-checked") == "true"
    weight = softmax(page.scores, causal=True)[1, 2, 5, 3].item()
    cell(page, 5, 3).hover()
    assert page.locator(".readout b").text_content() == f"{weight:.3f}"
    page.get_by_role("radio", name="Layer 0, head 1").click()
    assert page.get_by_label("Layer", exact=True).input_value() == "0"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Layer", exact=True).input_value() == "1"
    assert page.get_by_label("Head", exact=True).input_value() == "2"
    page.keyboard.press("ArrowRight")  # the end of the row holds
    assert page.get_by_label("Head", exact=True).input_value() == "2"


def test_scores_before_the_softmax(page):
    page.get_by_label("Before softmax").check(force=True)
    assert cell(page, 4, 2).get_attribute("aria-label") == f"{page.scores[0, 0, 4, 2].item():.3f}"
    assert cell(page, 2, 4).get_attribute("aria-label") == "masked"
    cell(page, 4, 2).hover()
    assert "from score" in page.locator(".readout").text_content()


def test_entropy_of_the_row(page):
    weights = softmax(page.scores, causal=True)[0, 0]
    bits = -(weights * weights.clamp(min=1e-300).log2()).sum(-1)
    for row in (0, 3, 6):
        page.locator(".text button").nth(row).hover()
        facts = page.locator(".facts b").all_text_contents()
        assert facts == [f"{abs(bits[row].item()):.2f}", f"{2 ** bits[row].item():.1f}"]


def test_keyboard_walk(page):
    page.get_by_label("Causal mask").focus()
    page.keyboard.press("Tab")  # the tokens: one stop
    assert page.evaluate(f"() => {API}.state.hover") == [0, None]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"() => {API}.state.hover") == [2, None]
    assert "␣sat" in spoken(page)
    page.keyboard.press("Enter")
    assert page.evaluate(f"() => {API}.state.pin") == [2, None]
    assert page.locator(".text button").nth(2).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.evaluate(f"() => {API}.state.pin") is None
    page.keyboard.press("Tab")  # the matrix: one stop
    assert page.evaluate(f"() => {API}.state.hover") == [6, 0]
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate(f"() => {API}.state.hover") == [5, 1]
    weight = softmax(page.scores, causal=True)[0, 0, 5, 1].item()
    said = spoken(page)
    assert f"weight {weight:.3f}" in said
    assert "␣mat" in said
    assert "␣cat" in said
    page.keyboard.press("Space")
    assert page.evaluate(f"() => {API}.state.pin") == [5, 1]
    page.keyboard.press("End")
    assert "masked" in spoken(page)
    page.keyboard.press("Control+Home")
    assert page.evaluate(f"() => {API}.state.hover") == [0, 0]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"() => {API}.state.hover") == [0, 0]
    page.keyboard.press("Escape")
    assert page.evaluate(f"() => {API}.state.pin") is None
    assert page.locator("td.cell[tabindex='0']").count() == 1
    page.keyboard.press("Tab")  # the maps: one stop, the chosen one
    focused = (
        "document.querySelector('[data-llm-widget] > div:last-child').shadowRoot.activeElement.ariaLabel"
    )
    assert page.evaluate(focused) == "Layer 0, head 0"


def test_mouse_is_silent_and_pins(page):
    page.wait_for_timeout(200)
    before = page.locator("[aria-live=polite]").text_content()
    cell(page, 6, 1).hover()
    cell(page, 6, 2).hover()
    page.wait_for_timeout(250)
    assert page.locator("[aria-live=polite]").text_content() == before
    cell(page, 6, 2).click()
    page.mouse.move(0, 0)
    assert page.locator(".cross.fixed").count() == 2
    assert "␣sat" in page.locator(".readout").text_content()
    cell(page, 6, 2).click()
    page.mouse.move(0, 0)
    assert page.locator(".cross:visible").count() == 0


def test_csv_and_svg_are_real_files(open_widgets):
    view, scores = attention_view(HOSTILE, layers=1, heads=1)
    page = open_widgets(view)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export this head as CSV").click()
    assert download.value.suggested_filename == "attention_layer0_head0_weights.csv"
    text = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert len(rows) == 1 + len(HOSTILE) ** 2
    assert {len(row) for row in rows} == {len(rows[0])}
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    weights = softmax(scores, causal=True)[0, 0]
    for line in table:
        i, j = int(line["query"]), int(line["key"])
        assert abs(float(line["weight"]) - weights[i, j].item()) < 6e-4
        token = HOSTILE[j].replace("\ud800", "\ufffd")
        assert line["key_token"] == ("'" + token if token.startswith("=") else token)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export this head as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}rect")) == 1 + len(HOSTILE) ** 2
    assert "<" in "".join(root.itertext())


def test_without_scores_two_decimals_and_exact_entropy(open_widgets):
    view, scores = attention_view(scores=False)
    page = open_widgets(view)
    assert page.get_by_label("Causal mask").count() == 0
    assert page.get_by_label("Before softmax").count() == 0
    weights = softmax(scores, causal=True)[0, 0]
    found = torch.tensor(page.evaluate(f"() => {API}.weights()"), dtype=torch.float64)
    assert (found - weights).abs().max() <= 0.5 / 255 + 1e-12
    assert len(cell(page, 6, 0).get_attribute("aria-label")) == len("0.12")


def test_entropy_does_not_suffer_from_bytes(open_widgets):
    tokens = [f" t{i}" for i in range(41)]
    view, scores = attention_view(tokens, layers=1, heads=1, causal=False, scores=False)
    page = open_widgets(view)
    weights = softmax(scores, causal=False)[0, 0]
    for row in (40, 13, 0):
        page.locator(".text button").nth(row).hover()
        bits = -(weights[row] * weights[row].log2()).sum().item()
        assert page.locator(".facts b").first.text_content() == f"{bits:.2f}"
    # The case can tell: from the bytes the first row's entropy would be another.
    rounded = torch.tensor(page.evaluate(f"() => {API}.weights()")[0], dtype=torch.float64)
    assert abs(-(rounded * rounded.clamp(min=1e-300).log2()).sum().item() - bits) > 0.01


def test_two_on_a_page_are_independent(open_widgets):
    view, _ = attention_view()
    page = open_widgets(view, view)  # the same contents twice: the same HTML twice
    assert page.locator(".widget").count() == 2
    page.locator(".widget").nth(1).get_by_label("Layer", exact=True).select_option("1")
    page.locator(".widget").nth(1).get_by_label("Before softmax").check(force=True)
    page.locator(".widget").nth(1).locator(".text button").nth(3).click()
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state)"
    )
    assert (states[0]["layer"], states[0]["view"], states[0]["pin"]) == (0, "weights", None)
    assert (states[1]["layer"], states[1]["view"], states[1]["pin"]) == (1, "scores", [3, None])
    assert page.locator(".widget").nth(0).get_by_label("After softmax").is_checked()


def test_hostile_tokens_stay_text(open_widgets):
    view, _ = attention_view(HOSTILE)
    page = open_widgets(view)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".widget").count() == 1
    shown = page.locator(".text button .token").all_text_contents()
    assert shown[0] == HOSTILE[0].replace(" ", "␣")
    assert shown[5] == "(empty)"
    assert shown[8] == "⟨U+202E⟩evil"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [1, 2, 64])
def test_sizes(open_widgets, size):
    view, _ = attention_view([f" t{i}" for i in range(size)], layers=1, heads=1)
    page = open_widgets(view, width=320)
    assert page.locator("td.cell").count() == size * size
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("td.cell").last.click()
    assert "looks at" in page.locator(".readout").text_content()


def test_fully_masked_rows_are_zero(open_widgets):
    scores = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    scores[..., 0, :] = -torch.inf
    weights = torch.nan_to_num(softmax(scores, causal=False))
    page = open_widgets(AttentionExplorer(["a", "b", "c"], weights, scores, causal=False))
    assert page.evaluate(f"() => {API}.weights()")[0] == [0, 0, 0]
    assert page.locator("td.cell.masked").count() == 3
