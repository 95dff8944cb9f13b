"""A load test of `llm-scratch serve` on loopback: many clients, some that leave, some that send nonsense.

    python -m benchmarks.serving [--model tiny] [--requests 200] [--concurrent 16] [--no-record]
    python -m benchmarks.serving --table

The server is a process of its own. Of the requests, sent so many at once, a third is given up midway by
closing the connection, and between them come bodies that are no JSON, fields out of range and connections
that break off. Afterwards: every survivor must have the text that its prompt and seed give alone
(`inference.generate` in this process), nothing may be left running, and threads, open files and memory of
the server must be what they were after a first round. ``tiny`` is a random model, for the machinery;
``smollm2`` also says how fast a real one answers, with 8 slots.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ledger import median, print_latest, record

NAME = "serving"
PROMPTS = (
    "The state of the Union",
    "Once upon a time",
    "1, 2, 3,",
    "Fellow citizens of the Senate and",
    "é語",
)
MALFORMED = (
    b"",
    b"{",
    b"[1]",
    b'{"model": "MODEL", "prompt": 7}',
    b'{"model": "MODEL", "n": 0}',
    b"\xff" * 90,
)


@dataclass
class Outcome:
    """What came of the requests."""

    survivors: list[tuple[dict, str, int]] = field(default_factory=list)  # what was asked, text, tokens
    cancelled: int = 0
    refused: int = 0  # malformed ones, each with status 400
    first: list[float] = field(default_factory=list)  # seconds to the first piece, of streams
    total: list[float] = field(default_factory=list)  # seconds to the end
    lost: list[str] = field(default_factory=list)  # anything else


async def ask(client, outcome: Outcome, fields: dict, leaves: bool) -> None:
    """One request, as a stream or whole; a client that leaves does so after a few pieces or a moment."""
    start, stream = time.perf_counter(), fields["seed"] % 2 == 0 or leaves
    try:
        async with asyncio.timeout(300):
            if not stream:
                answer = (await client.post("/v1/completions", json=fields)).json()
                text, tokens = answer["choices"][0]["text"], answer["usage"]["completion_tokens"]
            else:
                fields = {**fields, "stream": True, "stream_options": {"include_usage": True}}
                text, tokens, pieces, done = "", 0, 0, False
                async with client.stream("POST", "/v1/completions", json=fields) as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data: {"):
                            event = json.loads(line[6:])
                            if not pieces:
                                outcome.first.append(time.perf_counter() - start)
                            pieces += 1
                            text += "".join(choice["text"] for choice in event["choices"])
                            tokens = (event["usage"] or {}).get("completion_tokens", 0)
                        done |= line == "data: [DONE]"
                        if leaves and pieces > fields["seed"] % 5:
                            outcome.cancelled += 1
                            return  # which closes the connection
                if not done:
                    raise ValueError("the stream broke off")
        outcome.total.append(time.perf_counter() - start)
        outcome.survivors.append((fields, text, tokens))
    except Exception as error:
        outcome.lost.append(f"{type(error).__name__}: {error}")


async def nonsense(client, outcome: Outcome, number: int, model: str) -> None:
    """A malformed body, and a connection that breaks off in the middle of one."""
    body = MALFORMED[number % len(MALFORMED)].replace(b"MODEL", model.encode())
    answer = await client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    if answer.status_code == 400 and "error" in answer.json():
        outcome.refused += 1
    else:
        outcome.lost.append(f"status {answer.status_code} for {body!r:.40}")
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()


async def send_all(
    address: str, model: str, requests: int, concurrent: int, tokens: int, seed: int
) -> Outcome:
    """All requests of a round, ``concurrent`` of them at once."""
    import httpx

    outcome, gate, draws = Outcome(), asyncio.Semaphore(concurrent), random.Random(seed)
    async with httpx.AsyncClient(base_url=address, timeout=300) as client:

        async def one(number: int, fields: dict) -> None:
            async with gate:
                if number % 9 == 4:
                    await nonsense(client, outcome, number, model)
                await ask(client, outcome, fields, leaves=number % 3 == 2)

        work = []
        for number in range(requests):
            length, prompt = draws.randint(tokens // 4, tokens), draws.choice(PROMPTS)
            fields = {"model": model, "prompt": prompt, "max_tokens": length, "seed": 1000 * seed + number}
            work.append(one(number, fields))
        await asyncio.gather(*work)
        await client.get("/health")
    return outcome


def state_of(pid: int) -> dict[str, int]:
    """Threads, open files and resident memory of a process, as Linux tells them."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        if ":" in line
    )
    return {
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "megabytes": int(status["VmRSS"].split()[0]) // 1024,
    }


def wait_until_idle(address: str) -> None:
    """Return once nothing runs or waits. Raises: TimeoutError after 30 seconds."""
    import httpx

    end = time.monotonic() + 30
    while True:
        health = httpx.get(f"{address}/health", timeout=30).json()
        if not health["running"] and not health["waiting"]:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"30 seconds after the last request the server still has work: {health}")
        time.sleep(0.05)


def wrong_texts(survivors: list[tuple[dict, str, int]], source: str) -> int:
    """How many survivors have another text than their prompt and seed give alone."""
    from llm_from_scratch.inference.generate import generate
    from llm_from_scratch.recipes.opening import open_any
    from llm_from_scratch.serving import ServedModel
    from llm_from_scratch.serving.text_stream import TextStream

    loaded, start_ids = open_any(source)
    served, wrong = ServedModel.from_loaded("m", loaded, start_ids), 0
    for fields, text, _ in survivors:
        ids = served.encode_prompt(fields["prompt"])
        stream = TextStream(loaded.tokenizer, silent=served.silent_ids)
        settings = {
            "max_new_tokens": fields["max_tokens"],
            "seed": fields["seed"],
            "stop_ids": served.stop_ids,
        }
        expected = "".join(map(stream.add, generate(loaded.model, ids, **settings)))
        wrong += text != expected + stream.end()
    return wrong


def load_test(source: str, *, requests: int, concurrent: int, tokens: int) -> dict:
    """Start a server, send a first round and a second, compare; returns the figures."""
    options = ["--max-concurrent", "8", "--max-queue", str(concurrent), "--max-tokens", str(tokens)]
    command = [sys.executable, "-m", "llm_from_scratch.cli", "serve", source, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        if not line.startswith("Serving "):
            raise SystemExit(server.communicate()[1])
        name, address = line.split()[1], line.split()[3].removesuffix("/v1")
        warm = asyncio.run(
            send_all(address, name, max(requests // 4, concurrent), concurrent, tokens, seed=1)
        )
        wait_until_idle(address)
        before, start = state_of(server.pid), time.perf_counter()
        outcome = asyncio.run(send_all(address, name, requests, concurrent, tokens, seed=2))
        seconds = time.perf_counter() - start
        wait_until_idle(address)
        after = state_of(server.pid)
        server.terminate()
        _, errors = server.communicate(timeout=60)
    checked = outcome.survivors if len(outcome.survivors) * tokens < 20_000 else outcome.survivors[:20]
    return {
        "requests": requests,
        "at_once": concurrent,
        "survivors": len(outcome.survivors),
        "cancelled": outcome.cancelled,
        "malformed_refused": outcome.refused,
        "lost": len(outcome.lost) + len(warm.lost),
        "texts_compared": len(checked),
        "texts_that_differ": wrong_texts(checked, source),
        "seconds": round(seconds, 2),
        "survivors_tokens_per_second": round(sum(t for _, _, t in outcome.survivors) / seconds, 1),
        "first_piece_median_seconds": median(outcome.first),
        "answer_median_seconds": median(outcome.total),
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
        "exit_code": server.returncode,
        "stderr": [line for line in errors.splitlines() if line][:5] + outcome.lost[:5] + warm.lost[:5],
    }


def write_tiny(folder: Path) -> None:
    """A random model with a trained tokenizer, as a Hugging Face folder."""
    import torch

    from llm_from_scratch.interop import save_folder
    from llm_from_scratch.models.decoder import Decoder, DecoderConfig
    from llm_from_scratch.tokenizers import BytePairTokenizer

    torch.manual_seed(0)
    tokenizer = BytePairTokenizer.train([" ".join(PROMPTS) * 20], vocab_size=300, special_tokens=["<|end|>"])
    sizes = {"context_length": 256, "d_model": 72, "num_layers": 3, "num_heads": 6, "num_kv_heads": 2}
    model = Decoder(DecoderConfig.llama(vocab_size=tokenizer.vocab_size, tie_embeddings=True, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_folder(model, folder, tokenizer, special_tokens={"eos_token": "<|end|>"})


def table(figures: dict) -> str:
    """The figures as text."""
    f = figures
    return "\n".join(
        (
            f"model {f['model']}: {f['requests']} requests, {f['at_once']} at once",
            f"  given up midway by the client    {f['cancelled']:6}",
            f"  malformed bodies, all refused    {f['malformed_refused']:6}",
            f"  answered to the end              {f['survivors']:6}",
            f"  lost                             {f['lost']:6}",
            f"  compared with the text alone     {f['texts_compared']:6}, {f['texts_that_differ']} differ",
            f"  tokens a second, all together    {f['survivors_tokens_per_second']:6.0f}",
            f"  first piece, median              {f['first_piece_median_seconds']:6.2f} s",
            f"  whole answer, median             {f['answer_median_seconds']:6.2f} s",
            *(
                f"  {name + ' before and after':33}{f[f'{key}_before']:6} {f[f'{key}_after']:6}"
                for name, key in (
                    ("threads", "threads"),
                    ("open files", "files"),
                    ("memory (MB)", "megabytes"),
                )
            ),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny (random), or what llm-scratch serve takes")
    parser.add_argument("--requests", type=int, default=200, help="in the round that counts (default 200)")
    parser.add_argument("--concurrent", type=int, default=16, help="requests at once (default 16)")
    parser.add_argument("--tokens", type=int, default=60, help="tokens of the longest answer (default 60)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    parser.add_argument("--table", action="store_true", help="print the last recorded table, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_latest(NAME, table)
        return

    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.model
        if source == "tiny":
            source = str(Path(scratch) / "tiny")
            write_tiny(Path(source))
        sizes = {
            "requests": arguments.requests,
            "concurrent": arguments.concurrent,
            "tokens": arguments.tokens,
        }
        figures = {"model": arguments.model, **load_test(source, **sizes)}
    print(table(figures))
    if figures["lost"] or figures["texts_that_differ"]:
        raise SystemExit("requests were lost or answered wrongly")
    if not arguments.no_record:
        record(NAME, figures, packages=("torch", "fastapi", "uvicorn"))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
