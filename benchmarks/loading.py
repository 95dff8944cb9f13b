"""Time loading SmolLM2 and MiniLM, each in a fresh process, and its memory at the peak.

    python -m benchmarks.loading [--repeats 5] [--no-record]

SmolLM2 is read from its 4-bit GGUF file (98 MB), MiniLM from safetensors (91 MB), both to float32. Time
runs from the call to the loaded model and tokenizer, with Python, torch and the package imported before;
it includes the check of the file's sha256. Memory is the largest resident size of the process: Python,
torch and the mapped file included. SmolLM2 must then name the capital of France, or nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.ledger import median, record

CODE = """
import json, resource, sys, time
import torch
from llm_from_scratch import interop
start = time.perf_counter()
loaded = interop.load_{name}()
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
ids = loaded.tokenizer.encode("The capital of France is")
with torch.no_grad():
    found = loaded.model(torch.tensor([ids]))[0, -1]
next_token = loaded.tokenizer.decode([int(found.argmax())])
print(json.dumps({{"seconds": seconds, "peak_bytes": peak, "next": next_token}}))
"""


def run(name: str) -> dict:
    """Load the model in a process of its own."""
    command = [sys.executable, "-c", CODE.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are reported (default 5)")
    parser.add_argument("--no-record", action="store_true", help="print only; leave the ledger as it is")
    arguments = parser.parse_args()

    figures: dict[str, float | int] = {"repeats": arguments.repeats}
    for name in ("smollm2", "minilm"):
        found = [run(name) for _ in range(arguments.repeats)]
        if name == "smollm2" and found[0]["next"] != " Paris":
            raise SystemExit(f"the capital of France is{found[0]['next']}? the weights are read wrongly")
        figures[f"{name}_load_seconds"] = median([each["seconds"] for each in found])
        figures[f"{name}_peak_megabytes"] = round(max(each["peak_bytes"] for each in found) / 1e6)
    print(json.dumps(figures, indent=2))
    if not arguments.no_record:
        record("loading", figures, packages=("torch", "safetensors"))
        print("recorded in benchmarks/ledger.jsonl")


if __name__ == "__main__":
    main()
