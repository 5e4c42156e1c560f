"""Ways to damage a file at random, by a seed: bytes, JSON values anywhere, safetensors headers, texts."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 10**30, 1.5, float("nan"), float("inf"), -1e300, "", "x", "NaN", " ", "é" * 300),
    *("../../x.png", "/etc/passwd", "..\\x.png", "C:\\x.png", "~/x", "~nobody-here", "a\0b", "\ud800", "9" * 5000),
    *("spying:Thing", "spying.Thing", "os:system", "kept", "rejected", "good", "card.json", ".", "..", "{}", "[/]"),
    *([], {}, [[]], [None], [float("nan")] * 6, [1, 2, 3], [-5, -5, -1, -1], [1e9] * 4, ["a"] * 50, {"a": {"b": 1}}),
    *({"_target_": "os.system"}, [0, 0], [10**9, 10**9], {"size": ["a"]}, [[1, 2], [3]], "00000", "U8", "BF16"),
]
BYTES = [b"", b"\0", b"\n", b"NaN", b"-1e999", b"\xff\xfe", b"{", b"]", b"}", b"<", b'"', b"../", b"1" * 400, b"\r"]
TEXTS = ["", "nan", "-1", "1e999", "x", "0", "9" * 400, "../../x.png", "/etc/passwd", "é" * 300, " ", '"', "=1+1", "\0"]
YAML = [
    *("!!python/object/apply:os.system ['touch SPIED']", "!!python/name:spying.Thing", "&a [*a]", "{a: *b}", "!!int x"),
    *(
        "!!binary x",
        "2024-13-45",
        "1e",
        "0x",
        "~",
        "[" * 500,
        "{" * 500,
        "- - - -",
        "? a",
        "<<: 3",
        "!!set {a, b}",
        "|",
    ),
]
NUMBERS = [b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\x7c\0\x7c"]  # NaN, infinity, the largest


def bytes_of(rng: random.Random, content: bytes) -> bytes:
    """Cut off, replaced, turned or put in somewhere."""
    begin = rng.randint(0, len(content))
    how = rng.randrange(5)
    if how == 0:
        return content[:begin]
    if how == 1:
        return content[:begin] + rng.choice(BYTES) + content[min(len(content), begin + rng.randint(0, 9)) :]
    if how == 2:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if how == 3:
        return content[:begin] + content[begin : begin + rng.randint(1, 200)] * rng.randint(2, 5) + content[begin:]
    return rng.choice([b"", b"\0" * len(content), content[::-1], b"PK\3\4" + content, b"\x80\4K\1."])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        found += places(one, (*path, key))
    return found


def value_of(rng: random.Random, value: Any) -> Any:
    """A JSON value with one to three odd values in it, keys that are gone, or new ones."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        found = places(value)
        if not found or rng.random() < 0.03:
            return copy.deepcopy(rng.choice(ODD))
        *outer, last = rng.choice(found)
        inner = value
        for key in outer:
            inner = inner[key]
        how = rng.randrange(8)
        if how == 0:
            del inner[last]
        elif how == 1 and isinstance(inner, dict):
            inner[rng.choice(["x", "../x", "", "é", "__class__", "n", "file"])] = copy.deepcopy(rng.choice(ODD))
        elif how == 2 and isinstance(inner, list):
            inner.insert(0, copy.deepcopy(inner[last]))
        elif how == 3 and isinstance(inner[last], (int, float)) and not isinstance(inner[last], bool):
            inner[last] = inner[last] * rng.choice([-1, 0, 2, 1000]) + rng.choice([0, 1, 0.5])
        else:
            inner[last] = copy.deepcopy(rng.choice(ODD))
    return value


def json_of(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.25:
        return bytes_of(rng, content)
    return json.dumps(value_of(rng, json.loads(content))).encode()


def lines_of(rng: random.Random, content: bytes) -> bytes:
    """JSON, an object a line: one is damaged, gone, twice, or in another place."""
    rows = content.splitlines(keepends=True)
    if rng.random() < 0.2 or not rows:
        return bytes_of(rng, content)
    place = rng.randrange(len(rows))
    how = rng.randrange(8)
    if how == 0:
        del rows[place]
    elif how == 1:
        rows.insert(place, rows[place])
    elif how == 2:
        rng.shuffle(rows)
    else:
        rows[place] = json.dumps(value_of(rng, json.loads(rows[place]))).encode() + b"\n"
    return b"".join(rows)


def tensors_of(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file: its header's values, its header's length, or its bytes."""
    how = rng.randrange(6)
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    if how == 0:
        return bytes_of(rng, content)
    if how == 1:
        lie = rng.choice([0, 1, length - 1, length + 1, len(content), 2**31, 2**40, 2**63, 2**64 - 1])
        return lie.to_bytes(8, "little") + header + data
    if how == 2:  # whole and consistent, with other numbers in it
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 40)):
            place = rng.randrange(max(1, len(spoilt) - 4))
            spoilt[place : place + 4] = rng.choice(NUMBERS)
        return content[: 8 + length] + bytes(spoilt[: len(data)])
    changed = value_of(rng, json.loads(header))
    if how == 3 and isinstance(changed, dict):  # metadata alone
        changed = json.loads(header)
        changed["__metadata__"] = value_of(rng, changed.get("__metadata__", {"rank": "2"}))
    raw = json.dumps(changed).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + data


def text_of(rng: random.Random, content: bytes) -> bytes:
    """A CSV or a list: one of its cells, or its bytes."""
    if rng.random() < 0.3:
        return bytes_of(rng, content)
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines)) if lines else 0
    cells = lines[place].split(",") if lines else [""]
    cells[rng.randrange(len(cells))] = rng.choice(TEXTS)
    lines[place : place + 1] = [",".join(cells)] * rng.choice([1, 1, 2])
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def yaml_of(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.4:
        return text_of(rng, content.replace(b": ", b","))
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    key = lines[place].partition(":")[0]
    lines[place] = f"{key}: {rng.choice([*YAML, *TEXTS])}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


WAYS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes": bytes_of, "json": json_of, "lines": lines_of, "tensors": tensors_of, "text": text_of, "yaml": yaml_of,
}  # fmt: skip
