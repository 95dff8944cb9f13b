"""The tokenizer explorer in Chromium: its ids against the package's, its steps, its keyboard, its looks."""

import csv
import io
import random
import re
import xml.etree.ElementTree as ElementTree

import pytest

from llm_from_scratch.recipes.results import RESULTS
from llm_from_scratch.tokenizers import BytePairTokenizer
from llm_from_scratch.tokenizers.byte_pair import PIECE
from llm_from_scratch.widgets import TokenizerExplorer
from llm_from_scratch.widgets.tokenizer import shown

pytestmark = pytest.mark.browser
API = "document.querySelector('[data-llm-widget]').api"
END = "<|endoftext|>"
HOSTILE = "</script><img src=x onerror=window.hacked=1>\u202e\"';=SUM(A1)\x00<!--<script>\r\n&lt;"
BLANKS = "\t\n\v\f\r \x1c\x1f\x85\xa0\u1680\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
WORDS = " the|The|'s|'LL| 'll|'ve|'d|''|I'm| 1,862|３|½|Ⅷ|٣|—|’s|aaaaaaa|        |\n\n\n|    if x:\n|<"
SCRIPTS = (
    "e\u0301|\u0301|क्षि|ไทย|한국|語言|שָׁלוֹם|مرحبا|ﷺ|\U0001d538|\U00020000|\ufffd|\x00|\u202e|\u200d|\U000e0001"
)
EMOJI = "\U0001f469\u200d\U0001f469\u200d\U0001f467|\U0001f1e9\U0001f1ea|❤\ufe0f|\U0001f44d\U0001f3fd"
SNIPPETS = [snippet for row in (WORDS, SCRIPTS, EMOJI) for snippet in row.split("|")] + [END, END[:-1]]


@pytest.fixture(scope="module")
def tokenizer():
    return BytePairTokenizer.load(RESULTS / "laptop" / "tokenizer.json")


@pytest.fixture
def view(tokenizer):
    return TokenizerExplorer.of(tokenizer, "the theatre 語 <|endoftext|> the", title="A <tokenizer>")


def random_texts(count, seed=0):
    """Texts of all scripts, of blanks, marks, emoji, digits and contractions, short ones and long runs."""
    rng = random.Random(seed)

    def any_letter():
        code = rng.choice((rng.randrange(0x110000), rng.randrange(0x3100), rng.randrange(0x250)))
        return "" if 0xD800 <= code < 0xE000 else chr(code)

    parts = (
        any_letter,
        lambda: rng.choice(SNIPPETS),
        lambda: rng.choice(BLANKS) * rng.choice((1, 1, 2, 5)),
        lambda: rng.choice("abcdefghijklmnopqrstuvwxyz '' 0123456789.,!"),
    )
    texts = ["".join(rng.choice(parts)() for _ in range(rng.choice((1, 2, 4, 12, 50)))) for _ in range(count)]
    runs = ["a", " ", "\n", "🙂", "é", "0", "'", "語", " a", "\u0301", "the ", "\u200d"]
    return ["", *texts, *(run * (1000 // len(run)) for run in runs)]


def run(page, texts, recognise=False):
    return page.evaluate(
        f"([texts, recognise]) => texts.map((text) => {API}.tokenizer.run(text, recognise).ids)",
        [texts, recognise],
    )


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click(force=True)  # aria-disabled stays clickable


def box(page):
    return page.get_by_label("Text to encode")


def spoken(page, wait=350):
    page.wait_for_timeout(wait)
    return page.locator("[aria-live=polite]").text_content()


def shown_ids(page):
    return [int(text.split()[0]) for text in page.locator(".token small").all_text_contents()]


@pytest.mark.parametrize("recognise", [False, True])
def test_ids_equal_the_package(open_widgets, view, tokenizer, recognise):
    page, texts = open_widgets(view), random_texts(3000, seed=int(recognise))
    allowed = "all" if recognise else ()
    for text, ids in zip(texts, run(page, texts, recognise), strict=True):
        assert ids == tokenizer.encode(text, allowed_special=allowed), repr(text)


def test_ids_equal_where_merges_share_a_token_and_specials_overlap(open_widgets):
    # "abc" is made of "ab" + "c", and again, after "abc" + "a", of "a" + "bc": one join opens an earlier one.
    merges = [(65, 66), (64, 65), (257, 66), (258, 64), (64, 256)]
    tokenizer = BytePairTokenizer(merges, ["[a]", "[a]b", "a|b", "$^.*+?(){}\\/-"])
    page, rng = open_widgets(TokenizerExplorer.of(tokenizer, "abcabc")), random.Random(0)
    texts = [
        "".join(rng.choice(("a", "bc", "abc", "abcabc", "|", *tokenizer.special_tokens)) for _ in range(12))
        for _ in range(500)
    ]
    for recognise, allowed in ((False, ()), (True, "all")):
        for text, ids in zip(texts, run(page, texts, recognise), strict=True):
            assert ids == tokenizer.encode(text, allowed_special=allowed), text


def test_every_code_point_is_cut_as_in_python(open_widgets, view):
    """The browser's own classes may be of another Unicode; the tables that travel are the package's."""
    page = open_widgets(view)
    for start in range(0, 0x110000, 0x10000):
        lengths = page.evaluate(
            f"""(start) => {{
              let text = "";
              for (let code = start; code < start + 0x10000; code++) {{
                if (code < 0xd800 || code > 0xdfff) text += "a" + String.fromCodePoint(code) + "1";
              }}
              const pieces = text.matchAll({API}.tokenizer.pattern);
              return Array.from(pieces, ([piece]) => Array.from(piece).length).join();
            }}""".replace("Array.from(text.matchAll", "\n Array.from(text.matchAll"),
            start,
        )
        codes = (code for code in range(start, start + 0x10000) if not 0xD800 <= code < 0xE000)
        text = "".join(f"a{chr(code)}1" for code in codes)
        assert lengths == ",".join(str(len(piece)) for piece in PIECE.findall(text)), hex(start)
    # Why not the browser's own: its white space is another set, whatever its Unicode.
    assert page.evaluate(r"[/\s/u.test('\ufeff'), /\s/u.test('\x85')]") == [True, False]
    assert [PIECE.findall(f"!{blank}") for blank in "\ufeff\x85"] == [["!\ufeff"], ["!", "\x85"]]


def test_steps_go_from_bytes_to_the_encoding(open_widgets, view, tokenizer):
    page = open_widgets(view)
    steps = page.evaluate(f"{API}.tokenizer.run({API}.state.text).steps.length")
    assert shown_ids(page) == tokenizer.encode(view.text)
    assert page.locator(".fresh").count() == 0
    click(page, "To the bytes")
    alphabet = BytePairTokenizer([])
    assert shown_ids(page) == alphabet.encode(view.text)
    assert "Start: 33 bytes" in page.locator(".step").text_content()
    ranks, before = [], len(shown_ids(page))
    for step in range(1, steps + 1):
        click(page, "Next merge")
        words = page.locator(".step").text_content()
        assert words.startswith(f"Merge {step} of {steps}. Joins “")
        rank = int(re.search(r"rank ([\d,]+),", words)[1].replace(",", ""))
        places = int(re.search(r"at (\d+) place", words)[1])
        assert page.locator(".fresh").count() == places
        # The tokens after a step are those of a tokenizer that knows the merges up to this rank.
        part = BytePairTokenizer(tokenizer.merges[: rank + 1])
        assert shown_ids(page) == part.encode(view.text)
        assert before - len(shown_ids(page)) == places
        before = len(shown_ids(page))
        ranks.append(rank)
        left, right = tokenizer.merges[rank]
        texts = [text.strip("\u2068\u2069") for text in re.findall("“(.*?)”", words)]
        assert texts[:2] == tokenizer.tokens_as_text([left, right])
    assert ranks == sorted(set(ranks))
    assert "This is the encoding." in words
    click(page, "Next merge")
    assert page.evaluate(f"{API}.state.step") == steps
    click(page, "Previous merge")
    assert page.evaluate(f"{API}.state.step") == steps - 1
    page.get_by_role("slider").fill("3")
    assert page.evaluate(f"{API}.state.step") == 3
    box(page).fill("other")
    assert shown_ids(page) == tokenizer.encode("other")


def test_play_runs_to_the_end_and_pauses(open_widgets, view):
    page = open_widgets(view)
    page.clock.install()
    click(page, "Play the merges")
    assert page.evaluate(f"{API}.state.step") == 0
    page.clock.run_for(2800)
    assert page.evaluate(f"{API}.state.step") == 3
    assert page.locator("[aria-live=polite]").text_content() == ""
    click(page, "Pause the merges")
    page.clock.run_for(5000)
    assert page.evaluate(f"{API}.state.step") == 3
    assert page.locator("[aria-live=polite]").text_content().startswith("Merge 3 of")
    click(page, "Play the merges")
    page.clock.run_for(60_000)
    assert page.evaluate(f"{API}.state.step") == int(page.get_by_role("slider").get_attribute("max"))
    assert page.get_by_role("button", name="Play the merges").count() == 1
    click(page, "Play the merges")
    box(page).fill("the end")
    assert page.get_by_role("button", name="Play the merges").count() == 1  # who types wants to see the end


def test_special_tokens_count_only_when_asked(open_widgets, view, tokenizer):
    page = open_widgets(view)
    assert tokenizer.special_ids[END] not in shown_ids(page)
    assert "Read as ordinary text" in page.locator(".note").first.text_content()
    page.get_by_label(f"Recognise {END}").check()
    assert shown_ids(page) == tokenizer.encode(view.text, allowed_special="all")
    special = page.locator(".special")
    assert special.text_content() == f"{END}4095 special"
    assert "danger" in page.locator(".note").first.text_content()
    click(page, "To the bytes")
    assert page.locator(".special").count() == 1
    click(page, "Reset the text")
    page.get_by_label(f"Recognise {END}").uncheck()
    assert shown_ids(page) == tokenizer.encode(view.text)
    page = open_widgets(TokenizerExplorer([], (), "a"))
    assert page.get_by_role("checkbox").count() == 1  # none to recognise


def test_parts_of_characters_are_shown_as_bytes(open_widgets, view):
    page = open_widgets(view)
    box(page).fill("語")
    assert page.locator(".part bdi").all_text_contents() == ["⟨E8⟩", "⟨AA⟩", "⟨9E⟩"]
    assert page.locator(".note").text_content().endswith("shown as bytes in dashed boxes (3): 語.")
    page.locator(".token").nth(1).hover()
    assert (
        page.locator(".detail").text_content().endswith("A single byte. Holds byte 2 of the 3 bytes of 語. ")
    )
    page.get_by_label("Bytes instead of ids").check()
    assert page.locator(".token small").all_text_contents() == ["E8", "AA", "9E"]


def test_shown_is_as_in_python(open_widgets, view):
    page = open_widgets(view)
    texts = [text.encode() for text in [*SNIPPETS, HOSTILE, BLANKS]]
    tokens = [text[start:end] for text in texts for start, end in ((0, None), (1, None), (0, -1))]
    found = page.evaluate(f"(tokens) => tokens.map({API}.shown)", [list(token) for token in tokens])
    assert found == [shown(token) for token in tokens]


def test_lone_surrogates_are_refused_and_long_texts_cut(open_widgets, view, tokenizer):
    from playwright.sync_api import expect

    page = open_widgets(view)
    for units, place in (([97, 98, 0xD800, 99], 2), ([0xD83D, 0xDE42, 0xDFFF], 1), ([0xDC00, 0xD800], 0)):
        text = b"".join(unit.to_bytes(2, "little") for unit in units).decode("utf-16-le", "surrogatepass")
        with pytest.raises(ValueError, match=f"at position {place}"):
            tokenizer.encode(text)
        page.evaluate("(units) => { window.typed = String.fromCharCode(...units); }", units)
        box(page).evaluate("(box) => { box.value = window.typed; box.dispatchEvent(new Event('input')); }")
        assert f"at position {place}: half of a character" in page.locator(".note").text_content()
        assert page.locator(".token").count() == 0
        assert page.locator(".detail").text_content() == "No tokens."
    long = "🙂a " * 700
    box(page).fill(long)
    assert (
        "The text has 2,100 characters. Only the first 2,000 are encoded."
        in page.locator(".note").first.text_content()
    )
    assert page.evaluate(f"{API}.ids()") == tokenizer.encode(long[:2000])
    assert "Only the first 2,000" in spoken(page, 900)
    expect(page.locator(".token")).to_have_count(2000)
    assert "The first 2,000 tokens are drawn" in page.locator(".note").last.text_content()
    box(page).fill("")
    assert page.locator(".facts").text_content() == "0characters0UTF-8 bytes0tokens–bytes a token"


def test_keyboard_and_speech(open_widgets, view, tokenizer):
    page = open_widgets(view)
    box(page).focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("the cat", delay=20)
    assert spoken(page, 0) == ""  # not each key
    assert spoken(page, 900).strip() == f"{len(tokenizer.encode('the cat'))} tokens."
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    assert spoken(page).startswith("Merge ")
    assert spoken(page).endswith("tokens.")
    assert page.get_by_role("slider").get_attribute("aria-valuetext").startswith("Merge ")
    page.keyboard.press("Home")
    assert page.evaluate(f"{API}.state.step") == 0
    assert "Start: 7 bytes. " in spoken(page)
    page.keyboard.press("End")
    page.locator(".token").first.focus()
    assert page.locator(".detail").text_content().startswith("Token 1 of ")
    page.keyboard.press("ArrowRight")
    assert page.locator(".detail").text_content().startswith("Token 2 of ")
    assert page.locator('.token[aria-selected="true"]').count() == 1
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # nothing after the last
    assert page.locator(".token[tabindex='0']").count() == 1
    page.keyboard.press("Home")
    assert page.evaluate(f"{API}.state.token") == 0
    click(page, "Previous merge")
    page.locator("summary").last.click()
    assert page.locator("tbody tr").count() >= page.locator(".token").count()


def test_two_on_a_page_are_independent(open_widgets, view, tokenizer):
    page = open_widgets(view, TokenizerExplorer.of(tokenizer, "second"))
    box(page).nth(1).fill("changed")
    page.get_by_role("button", name="To the bytes").first.click()
    states = page.evaluate(
        "Array.from(document.querySelectorAll('[data-llm-widget]'), (root) => root.api.state)"
    )
    assert [state["text"] for state in states] == [view.text, "changed"]
    assert states[0]["step"] == 0
    assert states[1]["step"] > 0


@pytest.mark.parametrize("recognise", [False, True])
def test_files(open_widgets, tokenizer, recognise):
    text = HOSTILE + "語" + END + "\ufeff=1+1"
    page = open_widgets(TokenizerExplorer.of(tokenizer, text))
    assert page.evaluate("window.hacked") is None
    if recognise:
        page.get_by_label(f"Recognise {END}").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    content = download.value.path().read_bytes().decode("utf-8")
    rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert rows[0] == ["position", "token", "id", "utf8_bytes", "rank", "note"]
    ids = tokenizer.encode(text, allowed_special="all" if recognise else ())
    assert [int(row[2]) for row in rows[1:]] == ids
    assert bytes.fromhex("".join(row[3] for row in rows[1:])).decode() == text
    assert [row[1] for row in rows[1:] if row[5] == "special token"] == [END] * recognise
    assert not any(row[1].lstrip().startswith(tuple("=+-@")) for row in rows[1:])
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    assert len(root.findall(".//{*}rect")) == 1 + len(ids)
    words = [element.text for element in root.findall(".//{*}text[@class='i']")]
    assert [int(word.split()[0]) for word in words] == ids
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("sanitised", [False, True])
def test_fallback(open_widgets, tokenizer, sanitised):
    view = TokenizerExplorer.of(tokenizer, HOSTILE + "語")
    page = open_widgets(view, javascript=False, sanitised=sanitised)
    image = page.locator("main img")
    assert image.count() == 1
    assert "tokens. The tokens with their ids" in image.get_attribute("alt")
    assert image.evaluate("i => i.naturalWidth") == 700
    page.locator("summary").click()
    assert page.locator("tbody tr").count() == len(view.ids)


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 320)])
@pytest.mark.parametrize("text", [f"語 {END}" + HOSTILE + "x" * 40 + "\n" * 9, ""])
def test_axe_and_no_overflow(open_widgets, axe_faults, tokenizer, text, theme, width):
    page = open_widgets(TokenizerExplorer.of(tokenizer, text, title="T" * 60), theme=theme, width=width)
    assert not page.locator(".llm-widget-fallback").is_visible()
    page.locator("summary").last.click()
    click(page, "Previous merge")
    page.get_by_label(f"Recognise {END}").check()
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".tokens").evaluate("(list) => list.scrollWidth - list.clientWidth") <= 0


def test_forced_colours_large_text_print_and_theme(open_widgets, view):
    from playwright.sync_api import expect

    page = open_widgets(view, forced_colors="active", width=640)
    page.evaluate("document.documentElement.style.fontSize = '32px'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    click(page, "Previous merge")
    outline = "(n) => getComputedStyle(n).outlineStyle"
    assert page.locator(".fresh").first.evaluate(outline) == "solid"
    assert page.locator(".token").first.evaluate("(n) => getComputedStyle(n).borderTopWidth") != "0px"
    page = open_widgets(view, theme="dark")
    paper = "(n) => getComputedStyle(n).backgroundColor"
    dark = page.locator(".widget").evaluate(paper)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(page.locator(".widget")).to_have_css("background-color", "rgb(255, 255, 255)")
    assert dark != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Export as CSV").is_visible()


def test_the_list_follows_the_merge(open_widgets):
    from playwright.sync_api import expect

    page = open_widgets(TokenizerExplorer([(64, 65)], (), "x " * 700 + "ab"))
    assert page.locator(".tokens").evaluate("(list) => list.scrollHeight > 2 * list.clientHeight")
    click(page, "Previous merge")
    click(page, "Next merge")
    fresh = page.locator(".fresh")
    expect(fresh).to_have_count(1)  # past the first tokens, drawn a moment later
    inside = """(token) => { const [a, b] = [token, token.parentNode].map((n) => n.getBoundingClientRect());
        return a.top >= b.top && a.bottom <= b.bottom; }"""
    assert fresh.evaluate(inside)


def test_keys_are_no_shortcuts_of_jupyterlab(open_widgets, view):
    page = open_widgets(view)
    page.evaluate(
        """window.marked = [];
        document.addEventListener("keydown", (event) =>
          marked.push(event.target.hasAttribute("data-lm-suppress-shortcuts")), true);"""
    )
    box(page).focus()
    page.keyboard.press("d")
    assert page.evaluate("marked") == [True]
