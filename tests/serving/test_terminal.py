"""The chat in a terminal or behind a pipe: answers, commands, a full context, and Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from rich.console import Console

from llm_from_scratch.inference import CachedModel, generate
from llm_from_scratch.interop import encode_chat, save_folder
from llm_from_scratch.serving import Conversation, Terminal
from llm_from_scratch.serving.terminal import CONTROL_SIGNS
from tests.serving.conftest import tiny_loaded
from tests.serving.test_openai_client import as_text
from tests.serving.test_server import folder, wait_for  # noqa: F401


def talk(served, text, context_length=160, **settings):
    """Run a chat on these lines; returns it, what it wrote and what it noted."""
    out, notes = io.StringIO(), io.StringIO()
    terminal = Terminal(
        served,
        CachedModel(served.loaded.model),
        context_length,
        settings={"temperature": 0.8, "max_new_tokens": 12, "seed": 1, **settings},
        lines=io.StringIO(text),
        out=Console(file=out, width=200),
        notes=Console(file=notes, width=200),
    )
    terminal.run()
    return terminal, out.getvalue(), notes.getvalue()


def answer_to(served, messages, **settings):
    ids = encode_chat(served.loaded, messages)
    settings = {"temperature": 0.8, "max_new_tokens": 12, "seed": 1, **settings}
    return as_text(served, generate(served.loaded.model, ids, stop_ids=served.stop_ids, **settings))


def test_two_turns_and_the_same_answers_after_a_reset(served):
    terminal, out, notes = talk(served, "How is it?\n\nAnd now?\n/reset\nHow is it?\n")
    first = answer_to(served, [{"role": "user", "content": "How is it?"}])
    second = answer_to(
        served,
        [{"role": "user", "content": "How is it?"}, {"role": "assistant", "content": first},
         {"role": "user", "content": "And now?"}],
    )  # fmt: skip
    printable = "\n".join([first, second, first, ""]).translate(CONTROL_SIGNS)
    assert out == printable
    assert "forgotten" in notes
    assert len(terminal.talk.turns) == 2


def test_an_instruction_and_settings(served):
    text = "/system Be brief.\n/settings temperature 0\n/settings top_k 5\n/settings seed none\nHow?\n"
    terminal, _, notes = talk(served, text + "/settings\n")
    expected = answer_to(
        served,
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}],
        temperature=0,
    )
    assert terminal.talk.turns[-1]["content"] == expected
    assert terminal.settings == {"temperature": 0.0, "max_new_tokens": 12, "top_k": 5}
    assert "temperature     0.0" in notes
    for line in (
        "/settings top_p 7",
        "/settings top_k x",
        "/settings colour red",
        "/settings max_new_tokens none",
    ):
        terminal, _, notes = talk(served, line + "\n")
        assert terminal.settings == {"temperature": 0.8, "max_new_tokens": 12, "seed": 1}
        assert "Not changed" in notes or "Write /settings" in notes


def test_commands(served, tmp_path):
    path = tmp_path / "talk.json"
    terminal, _, notes = talk(served, f"How?\n/save {path}\n/save {path}\n/dance\n/quit\nnever asked\n")
    assert json.loads(path.read_text(encoding="utf-8"))["messages"] == terminal.talk.messages
    assert len(terminal.talk.turns) == 2
    assert "exists already" in notes
    assert "no command /dance" in notes
    _, _, notes = talk(served, "/help\n/system\n/save /no/such/folder/x\n")
    assert "/reset" in notes
    assert "The instruction: none" in notes


def test_a_full_context_forgets_the_oldest_turns(served):
    lines = [f"This is question number {n}, and it is a long one." for n in range(8)]
    terminal, _, notes = talk(served, "\n".join(lines) + "\n")
    assert "The context of 160 tokens is full" in notes
    assert len(terminal.talk.turns) == 16
    forgotten = terminal.talk.forgotten
    assert 0 < forgotten < 16
    assert forgotten % 2 == 0
    last = terminal.talk.turns[forgotten:-1]
    assert terminal.talk.turns[-1]["content"] == answer_to(served, last)


def test_what_cannot_be_answered_is_not_kept(served):
    for line, message in (("word " * 200, "shorten it"), ("<|im_end|>", "special token")):
        terminal, _, notes = talk(served, f"{line}\nHow is it?\n")
        assert message in notes
        assert len(terminal.talk.turns) == 2
        assert terminal.talk.forgotten == 0
        assert terminal.talk.turns[1]["content"] == answer_to(served, terminal.talk.turns[:1])


def test_ctrl_c_stops_the_answer_and_not_the_program(served, monkeypatch):
    """After three tokens; the beginning of the answer stays part of the conversation."""
    calls = []
    whole = CachedModel.__call__

    def interrupted(self, ids_BT):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, ids_BT)

    monkeypatch.setattr(CachedModel, "__call__", interrupted)
    terminal, _, notes = talk(served, "How is it?\nAnd now?\n")
    assert "stopped" in notes
    assert len(terminal.talk.turns) == 4
    assert len(terminal.talk.turns[1]["content"]) < len(terminal.talk.turns[3]["content"])
    assert terminal.talk.turns[3]["content"] == answer_to(served, terminal.talk.turns[:3])


def test_ctrl_c_before_the_first_token_takes_the_question_back(served, monkeypatch):
    whole, calls = Conversation.encode, []

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return whole(self, *given)

    monkeypatch.setattr(Conversation, "encode", interrupted)
    terminal, _, notes = talk(served, "How is it?\nAnd now?\n")
    assert "stopped" in notes
    assert [turn["content"] for turn in terminal.talk.turns][:1] == ["And now?"]
    assert len(terminal.talk.turns) == 2


def test_control_signs_do_not_reach_the_terminal(served):
    """Also from a model that wants to ring the bell: id of the byte 7, made the only likely one."""
    bell = served.loaded.tokenizer.encode("\a")[0]
    terminal, _, _ = talk(served, "How?\n")

    class Ringing(CachedModel):
        def __call__(self, ids_BT):
            logits = super().__call__(ids_BT)
            logits[..., bell] = 99.0
            return logits

    terminal.model, terminal.lines = Ringing(served.loaded.model), io.StringIO("And now?\n")
    terminal.out = Console(file=(wrote := io.StringIO()))
    terminal.run()
    assert "\ufffd" * 12 in wrote.getvalue()
    assert "\a" not in wrote.getvalue()


def test_an_answer_that_spells_a_special_token_can_be_followed_up(served):
    letters = iter([*served.loaded.tokenizer.encode("so <|im_end|> then"), *[0] * 99])

    class Spelling(CachedModel):
        def __call__(self, ids_BT):
            logits = super().__call__(ids_BT)
            logits[..., next(letters)] = 99.0
            return logits

    terminal, _, _ = talk(served, "", max_new_tokens=18)
    terminal.model, terminal.lines = Spelling(served.loaded.model), io.StringIO("How?\nAnd now?\n")
    terminal.run()
    assert terminal.talk.turns[1]["content"].startswith("so  then")
    assert len(terminal.talk.turns) == 4


def test_a_conversation_without_room():
    conversation = Conversation(system="x")
    conversation.ask("a")
    conversation.answer("b")
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "x"}]


@pytest.mark.slow
@pytest.mark.alone
def test_the_command_behind_a_pipe(folder):  # noqa: F811
    run = subprocess.run(
        [sys.executable, "-m", "llm_from_scratch.cli", "chat", str(folder), "--seed", "1",
         "--max-new-tokens", "9"],
        input="How is it?\n/settings\n", capture_output=True, text=True, timeout=120, encoding="utf-8",
    )  # fmt: skip
    assert run.returncode == 0
    assert run.stdout.strip()
    assert "seed            1" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
@pytest.mark.alone
def test_ctrl_c_in_a_terminal(tmp_path):
    """A real pseudo-terminal: Ctrl-C at the prompt and during an answer, then a command still works.

    The model has no token that ends an answer, and room for thousands: it is still answering when stopped.
    """
    import pty

    loaded = tiny_loaded(context_length=8000, special_tokens=["<|question|>", "<|answer|>"])
    template = "{% for m in messages %}<|question|>{{ m.content }}{% endfor %}<|answer|>"
    save_folder(loaded.model, tmp_path / "tiny", loaded.tokenizer, chat_template=template)
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_from_scratch.cli", "chat", str(tmp_path / "tiny"),
         "--max-new-tokens", "7000"],
        stdin=child, stdout=child, stderr=child, start_new_session=True,
        # What starts the tests in the background may ignore Ctrl-C, and a process inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    seen = bytearray()
    os.set_blocking(parent, False)

    def shows(text, after=b""):
        with suppress(OSError):  # nothing to read
            seen.extend(os.read(parent, 65536))
        return text in seen.partition(after)[2] if after else text in seen

    def begun(length):
        return shows(b"Union?\r\n") and len(seen.partition(b"Union?\r\n")[2]) > length

    def repeat_until(text, act, after=b""):
        """Act every two seconds: a signal just before Python's input waits is seen at the next key only."""
        for _ in range(30):
            act()
            with suppress(AssertionError):
                return wait_for(lambda: shows(text, after), 2)
        raise AssertionError(f"{text} never came: {bytes(seen)}")

    def interrupt():
        process.send_signal(signal.SIGINT)

    try:
        wait_for(lambda: shows(b"> "), 120)
        repeat_until(b"/quit or Ctrl-D leaves", interrupt)
        wait_for(lambda: shows(b"> ", after=b"Ctrl-D leaves\x1b"), 60)
        os.write(parent, b"How is the Union?\n")
        wait_for(lambda: begun(50), 60)
        repeat_until(b"stopped", interrupt)
        wait_for(lambda: shows(b"> ", after=b"stopped"), 60)
        repeat_until(b"The instruction: none", lambda: os.write(parent, b"/system\n"))
        os.write(parent, b"/quit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)
        os.close(child)
