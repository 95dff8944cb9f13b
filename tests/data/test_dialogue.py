"""Dialogue out of small wheels written here, out of damaged ones, and once of the real one."""

import zipfile

import pytest

from llm_from_scratch.data import dialogue as module
from llm_from_scratch.data.artifacts import fetch
from llm_from_scratch.data.dialogue import load_dialogue


def wheel(folder, **topics):
    path = folder / "chatterbot_corpus-0.0.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for topic, text in topics.items():
            archive.writestr(f"chatterbot_corpus/data/english/{topic}.yml", text)
        archive.writestr("chatterbot_corpus/data/german/ai.yml", "conversations:\n- - Hallo\n  - Guten Tag\n")
        archive.writestr("chatterbot_corpus/data/english/notes.txt", "no YAML: [")
    return path


FOOD = """categories:
- food
conversations:
- - Are you  hungry
  - 'I am a machine.
    I never eat.'
- - Are you hungry?
  - I am a machine, I never eat!
- - Are you hungry
  - 'No.'
- - Like tea?
  - Yes.
  - Why?
  - It is warm.
- - Nothing follows?
  - ''
"""
CODE = (
    "conversations:\n- - Write a loop\n  - |\n    Here:\n\n    ```\n    while True:\n        pass\n    ```\n"
)


def test_first_pairs_once_each_in_order(tmp_path):
    assert load_dialogue(wheel(tmp_path, food=FOOD, coding=CODE)) == (
        ("Write a loop", "Here:\n\n```\nwhile True:\n    pass\n```"),
        ("Are you hungry", "I am a machine. I never eat."),
        ("Are you hungry", "No."),
        ("Like tea?", "Yes."),
    )


def test_topics_and_the_longest_answer(tmp_path):
    archive = wheel(tmp_path, food=FOOD, coding=CODE)
    assert len(load_dialogue(archive, topics=["food"])) == 3
    assert load_dialogue(archive, longest=4) == (("Are you hungry", "No."), ("Like tea?", "Yes."))
    assert load_dialogue(archive, longest=3) == (("Are you hungry", "No."),)
    with pytest.raises(ValueError, match=r"no topic \['law'\]; it has coding, food"):
        load_dialogue(archive, topics=["food", "law"])
    with pytest.raises(ValueError, match="longest must be at least 1 character, got 0"):
        load_dialogue(archive, longest=0)


@pytest.mark.parametrize(
    "text", ["conversations: [", "categories:\n- x\n", "- a\n", "conversations:\n- - alone\n"]
)
def test_what_is_no_corpus_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"chatterbot_corpus-0\.0\.whl is no wheel of chatterbot-corpus"):
        load_dialogue(wheel(tmp_path, food=text))
    with pytest.raises(ValueError, match=r"has no topic \[\]; it has none"):
        load_dialogue(wheel(tmp_path))
    half = tmp_path / "half.whl"
    half.write_bytes(wheel(tmp_path, food=FOOD).read_bytes()[:200])
    with pytest.raises(ValueError, match=r"half\.whl is no wheel"):
        load_dialogue(half)


def test_without_an_archive_the_artifact_is_fetched(tmp_path, monkeypatch):
    archive = wheel(tmp_path, food=FOOD)
    asked = []
    monkeypatch.setattr(module, "fetch", lambda name: (asked.append(name), archive)[1])
    assert len(load_dialogue()) == 3
    assert asked == ["dialogue"]


def test_without_yaml_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pyyaml"):
        load_dialogue(wheel(tmp_path, food=FOOD))


@pytest.mark.slow
def test_the_real_corpus():
    pairs = load_dialogue()
    assert len(pairs) == 870
    assert len(set(pairs)) == 870
    assert ("What is AI?", "AI is the field of science") in [(q, a[:26]) for q, a in pairs]
    assert max(len(answer) for _, answer in pairs) <= 300
    with zipfile.ZipFile(fetch("dialogue")) as package:
        import yaml

        files = [name for name in package.namelist() if name.endswith(".yml") and "/english/" in name]
        conversations = sum(len(yaml.safe_load(package.read(name))["conversations"]) for name in files)
    assert len(files) == 21
    assert f"{conversations:,} conversations; {len(pairs)} pairs" in " ".join(load_dialogue.__doc__.split())
