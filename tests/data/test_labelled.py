"""Labelled texts: their cleaning, their split, the two collections, and files of a reader's own."""

import csv
import hashlib
import io
import json
import re
import string
import tarfile
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_from_scratch.data import labelled
from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.labelled import clean, load_labelled, read_film_sentiment, read_sms_spam
from llm_from_scratch.data.labelled_files import load_labelled_file
from llm_from_scratch.data.labelled_splits import near_form, place_of, split_texts

PARTS = ("train", "validation", "test")


def rows_of(data):
    return [
        (text, label)
        for part in PARTS
        for text, label in zip(getattr(data, part).texts, getattr(data, part).labels, strict=True)
    ]


def many(count=400):
    return [(f"{'dull' if n % 2 else 'fine'} {number_in_letters(n)}", n % 2) for n in range(count)]


def number_in_letters(n):
    return "".join(string.ascii_lowercase[int(digit)] for digit in str(n))


def test_cleaning():
    assert clean(" S&amp;M &lt;#&gt;\t it\x92s \x93so\x94\n\n") == "S&M <#> it’s “so”"
    assert clean("a\x81b") == "ab"  # a place that Windows-1252 leaves empty
    assert clean("naïve – £5, ü") == "naïve – £5, ü"


@given(st.text())
def test_the_near_form_has_no_digits_and_is_its_own_near_form(text):
    form = near_form(text)
    assert near_form(form) == form
    assert not re.search(r"\d|_|  ", form)


def test_every_text_is_in_one_part_and_keeps_its_label():
    rows = many()
    data = split_texts("x", ("fine", "dull"), rows)
    assert sorted(rows_of(data)) == sorted(rows)
    assert data.num_classes == 2
    for part in PARTS:  # in the order of the rows
        found = list(zip(getattr(data, part).texts, getattr(data, part).labels, strict=True))
        assert found == [row for row in rows if row in set(found)]
    assert 50 < len(data.test) < 110  # 80 expected, standard deviation 8
    assert 15 < len(data.validation) < 65  # 40 expected, standard deviation 6


def test_a_part_depends_on_the_text_alone():
    rows = many()
    part_of = {text: part for part in PARTS for text in getattr(split_texts("x", "ab", rows), part).texts}
    some = split_texts("x", "ab", rows[100:][::-1])
    assert all(part_of[text] == part for part in PARTS for text in getattr(some, part).texts)
    other = split_texts("x", "ab", rows, salt="y")
    assert set(other.test.texts) != set(split_texts("x", "ab", rows).test.texts)
    assert set(split_texts("z", "ab", rows, salt="x").test.texts) == set(
        split_texts("x", "ab", rows).test.texts
    )


def test_the_place_is_the_hash_of_the_near_form():
    expected = int(hashlib.sha256(b"salt\ncall now").hexdigest()[:12], 16) / 16**12
    assert place_of("Call 0800 NOW!!", "salt") == expected


def test_near_duplicates_share_a_part():
    rows = [(f"{text}{ending}", label) for text, label in many() for ending in ("", "!", " 0800", " 12.")]
    data = split_texts("x", "ab", rows)
    assert len(rows_of(data)) == len(rows)
    forms = [{near_form(text) for text in getattr(data, part).texts} for part in PARTS]
    assert sum(map(len, forms)) == len(set().union(*forms))


def test_of_equal_texts_one_is_kept_and_two_labels_are_an_error():
    rows = many()
    assert len(rows_of(split_texts("x", "ab", rows + rows))) == len(rows)
    with pytest.raises(ValueError, match=r"x: the text 'fine a' has the labels 'good' and 'bad'"):
        split_texts("x", ("good", "bad"), [*rows, ("fine a", 1)])


def test_a_part_without_a_label_is_an_error():
    with pytest.raises(ValueError, match=r"the \w+ part, \d+ of 401 texts, has none of label 'rare'"):
        split_texts("x", ("fine", "dull", "rare"), [*many(), ("one of its kind", 2)])
    for shares in ((0.5, 0.5), (0.0, 0.1), (0.2, 0.0), (-0.1, 0.1)):
        with pytest.raises(ValueError, match="must be above 0 and leave a part to train on"):
            split_texts("x", "ab", many(), test_share=shares[0], validation_share=shares[1])


def snippets(folder, text, member="hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"):
    path = folder / "hutto_ICWSM_2014.tar.gz"
    with tarfile.open(path, "w:gz") as package:
        info = tarfile.TarInfo(member)
        content = text.encode()
        info.size = len(content)
        package.addfile(info, io.BytesIO(content))
    return path


def test_film_scores_become_labels(tmp_path):
    lines = [
        "1\t2.5\tA joy",
        "2\t-0.5\tFlat &amp;  long",
        "3\t0.49\tIt exists",
        "4\t0.5\tNice",
        "5\t-0.4\tMeh",
    ]
    path = snippets(tmp_path, "\r\n".join(lines) + "\r\n")
    assert read_film_sentiment(path) == [("A joy", 1), ("Flat & long", 0), ("Nice", 1)]


@pytest.mark.parametrize("text", ["1\tgood\tx\r\n", "1\t2.0\r\n", "a\tb\tc\td\r\n"])
def test_another_archive_of_films_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"hutto_ICWSM_2014\.tar\.gz is not the archive of the snippets"):
        read_film_sentiment(snippets(tmp_path, text))
    with pytest.raises(ValueError, match="is not the archive"):
        read_film_sentiment(snippets(tmp_path, "", member="other.txt"))
    path = tmp_path / "half.tar.gz"
    path.write_bytes(snippets(tmp_path, text).read_bytes()[:40])
    with pytest.raises(ValueError, match=r"half\.tar\.gz is not"):
        read_film_sentiment(path)


def test_messages_hidden_in_a_row_are_taken_apart(tmp_path):
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["", "spam", "text"])
    hidden = 'one" more..\nham\tOk.\nspam\tWIN £5 at 07\nham\tham\tand eggs'
    writer.writerows([[0, 0, "Hi, &lt;#&gt;"], [1, 1, "Free!"], [2, 0, hidden]])
    path = tmp_path / "sms-spam.csv"
    path.write_text(table.getvalue(), encoding="utf-8", newline="")
    assert read_sms_spam(path) == [
        ("Hi, <#>", 0),
        ("Free!", 1),
        ('one" more..', 0),
        ("Ok.", 0),
        ("WIN £5 at 07", 1),
        ("ham and eggs", 0),
    ]
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"sms-spam\.csv is not the table"):
        read_sms_spam(path)


def test_names_are_checked_and_artifacts_fetched(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'imdb'; there are 'film_sentiment', 'sms_spam'"):
        load_labelled("imdb")
    lines = [f"{n}\t{1.0 if label else -1.0}\t{text}" for n, (text, label) in enumerate(many())]
    path = snippets(tmp_path, "\r\n".join(lines))
    asked = []
    monkeypatch.setattr(labelled, "fetch", lambda name: (asked.append(name), path)[1])
    data = load_labelled("film_sentiment")
    assert asked == ["film_sentiment"]
    assert data.label_names == ("negative", "positive")
    assert sorted(rows_of(data)) == sorted(many())


REAL = {  # counted from the files; the numbers stand in load_labelled's docstring
    "film_sentiment": {"train": (3_509, 3_510), "validation": (542, 521), "test": (1_024, 964)},
    "sms_spam": {"train": (3_236, 449), "validation": (450, 67), "test": (832, 125)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_real_collections(name):
    data = load_labelled(name)
    for part, counts in REAL[name].items():
        found = Counter(getattr(data, part).labels)
        assert (found[0], found[1]) == counts
        for text in getattr(data, part).texts:
            assert text
            assert text == clean(text)
    said = " ".join(load_labelled.__doc__.split())
    for counts in REAL[name].values():
        assert f"{sum(counts):,}" in said
    rows = {"film_sentiment": read_film_sentiment, "sms_spam": read_sms_spam}[name](fetch(name))
    assert len(rows) == {"film_sentiment": 10_072, "sms_spam": 5_574}[name]
    assert len(rows_of(data)) == len({text for text, _ in rows})


def own_file(folder, rows, kind):
    path = folder / f"own.{kind}"
    if kind == "jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "text"])
            writer.writerows([[n, label, text] for n, (text, label) in enumerate(rows)])
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_own_files_are_read(tmp_path, kind):
    rows = [(f'{text}, "quoted"\nover\u2028lines ', ("no", "yes")[label]) for text, label in many()]
    data = load_labelled_file(own_file(tmp_path, rows, kind))
    assert data.label_names == ("no", "yes")
    assert data.name == f"own.{kind}"
    found = [(text, data.label_names[label]) for text, label in rows_of(data)]
    assert sorted(found) == sorted((text.strip(), label) for text, label in rows)


def test_labels_that_are_numbers_are_in_the_order_of_size(tmp_path):
    rows = [(text, (2, 10)[label]) for text, label in many()]
    for kind in ("csv", "jsonl"):
        assert load_labelled_file(own_file(tmp_path, rows, kind)).label_names == ("2", "10")


def test_the_split_of_a_file_does_not_depend_on_its_name_or_kind(tmp_path):
    rows = [(text, str(label)) for text, label in many()]
    a, b = (load_labelled_file(own_file(tmp_path, rows, kind)) for kind in ("csv", "jsonl"))
    assert a.test == b.test
    assert len(load_labelled_file(tmp_path / "own.csv", test_share=0.5).test) > 150


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt ends in '\.txt'.*\.csv or \.jsonl"),
        ("a.csv", b"", r"a\.csv, line 1: no column is named 'text'"),
        ("a.csv", b"text,class\nx,1\n", r"line 1: no column is named 'label'"),
        ("a.csv", b"text,label\nx,1\ny\n", r"a\.csv, line 3: no label"),
        ("a.csv", b"text,label\nx,1\n ,2\n", r"line 3: the text is empty"),
        ("a.csv", b'text,label\n"a\nb",1\nx, y,1\n', r"line 4: 3 fields, but 2 columns.*quotation marks"),
        ("a.csv", b'text,label\nx,1\n"y"z,1\n', r"line 3: here begins what is no row"),
        ("a.csv", b'text,label\nx,1\n"y,1\nz,2\n', r"line 3: here begins what is no row"),
        ("a.csv", b"text,label\nx,1\nx,2\n", r"line 3: the text has the label '2', but '1' in line 2"),
        ("a.csv", b"text,label\nx,1\ny\xff,2\n", r"line 3: byte 16 is not UTF-8"),
        ("a.csv", b"text,label\nx,1\n", r"1 rows with 1 label\(s\) \(1\); at least two"),
        ("a.jsonl", b"", r"0 rows with 0 label\(s\) \(none\)"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n\n{"text": "y"}\n', r"a\.jsonl, line 3: no label"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": \n', r"line 2: not JSON"),
        ("a.jsonl", b'["x", 1]\n', r"line 1: list, expected an object"),
        ("a.jsonl", b'{"text": 5, "label": 1}\n', r"line 1: the text is 5, expected text"),
        ("a.jsonl", b'{"text": "x", "label": true}\n', r"line 1: the label is True, expected text"),
        ("a.jsonl", b'{"text": "x", "label": 1.5}\n', r"line 1: the label is 1\.5, expected text"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_labelled_file(tmp_path / name)


def test_a_long_field_is_read_and_an_absent_file_is_an_error(tmp_path):
    rows = [*many(), ("word " * 40_000, 1)]
    before = csv.field_size_limit()
    data = load_labelled_file(own_file(tmp_path, rows, "csv"))
    assert len(rows_of(data)) == 401
    assert csv.field_size_limit() == before
    with pytest.raises(FileNotFoundError):
        load_labelled_file(tmp_path / "absent.csv")
