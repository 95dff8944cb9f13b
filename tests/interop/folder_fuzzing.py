"""Damage a valid folder at random; each damaged one must load, or be refused with a clear error.

Run by the tests as a process of its own, under a limit of memory where the system has one:
``python folder_fuzzing.py FOLDER COUNT SEED``. It prints one JSON line.
"""

import json
import random
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

EXTREMES = [
    0, -1, 1, 2**31, 2**53, 2**63, 10**30, -(2**63), 0.5, 1e308, True, None, "", "x", [], [1], {}, "..",
    "../../etc/passwd", "/etc/passwd", "C:\\x", [2**40, 2**40], [-1, 5], [[1]], "F16", "I64", "\ud800",
]  # fmt: skip


def places(value, path=()):
    """Every place inside a JSON value, as a path of keys and indices."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutate_json(value, rng):
    """Change, remove or double one place in a JSON value."""
    path = rng.choice(list(places(value))[1:])
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    kind = rng.random()
    if kind < 0.6:
        parent[path[-1]] = rng.choice(EXTREMES)
    elif kind < 0.8:
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent[rng.choice(["new_field", "rope_scaling", "quantization_config"])] = rng.choice(EXTREMES)
    else:
        parent.append(rng.choice(EXTREMES))
    return json.dumps(value).encode()


def mutate_bytes(content, rng):
    """Flip, cut, double or overwrite some bytes."""
    content = bytearray(content)
    kind = rng.randrange(5)
    at = rng.randrange(max(1, len(content)))
    if kind == 0:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at:at] = content[max(0, at - 20) : at]
    elif kind == 3:
        content[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]))
    else:
        del content[at : at + rng.randrange(1, 9)]
    return bytes(content)


def mutate_safetensors(content, rng):
    """Damage the length, the header as text, the header as JSON, or any byte."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    kind = rng.random()
    if kind < 0.1:
        return (
            struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**40, 2**63, 2**64 - 1]))
            + content[8:]
        )
    if kind < 0.4:
        header = mutate_bytes(header, rng)
        return struct.pack("<Q", len(header) if rng.random() < 0.7 else length) + header + data
    if kind < 0.8:
        header = mutate_json(json.loads(header), rng)
        return struct.pack("<Q", len(header)) + header + data
    return mutate_bytes(content, rng)


def mutate(folder, rng):
    """Damage one file of the folder in place, and say which."""
    path = rng.choice(sorted(p for p in folder.iterdir() if p.is_file()))
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        path.write_bytes(mutate_safetensors(content, rng))
    elif path.suffix == ".json" and rng.random() < 0.7:
        path.write_bytes(mutate_json(json.loads(content), rng))
    else:
        path.write_bytes(mutate_bytes(content, rng))
    return path.name


def main():
    source, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    from llm_from_scratch.interop.hugging_face import load_folder

    load_folder(source)  # what is loaded once, and the undamaged folder
    limit_memory(1 << 30)
    result = {"loaded": 0, "refused": 0, "wrong": [], "seconds": []}
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            rng = random.Random(f"{seed}-{number}")
            folder = Path(place) / "model"
            shutil.copytree(source, folder)
            name = mutate(folder, rng)
            start = time.process_time()
            try:
                load_folder(folder)
                result["loaded"] += 1
            except (ValueError, FileNotFoundError) as error:
                result["refused"] += 1
                if len(str(error)) > 1000 or not str(error):
                    result["wrong"].append([number, name, f"message of {len(str(error))} characters"])
            except BaseException as error:
                result["wrong"].append([number, name, f"{type(error).__name__}: {str(error)[:300]}"])
            result["seconds"].append(time.process_time() - start)
            shutil.rmtree(folder)
    seconds = sorted(result.pop("seconds"))
    result |= {"median_seconds": seconds[len(seconds) // 2], "slowest_seconds": seconds[-1]}
    print(json.dumps(result))


def limit_memory(more):
    """Let this process take ``more`` bytes of address space than now, where the system can say so."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


if __name__ == "__main__":
    main()
