"""What happens to files on their way: bytes turned, cut, doubled, lines and values changed."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

_PIECES = (
    *(
        b'"',
        b"'",
        b"\x00",
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b",",
        b";",
        b"|",
        b"::",
        b" ",
        b'""',
        b",",
    ),
    *(b"\xff", b"\xef\xbb\xbf", b"\xe9", b"\xed\xa0\x80", b"\x1a", b"\\", b"{", b"}", b"[", b"]"),
    *(b"sep=;\n", b"NaN", b"now", b"1e999", b"99999999999999999999", b"-", b"9" * 5000, b'"\n"'),
    *(b",,,,,,,", b"\n\n\n", b"user_id,item_id,timestamp\n", b"#", b": ", b"null", b"\x1b[0m"),
)
_JSON_VALUES = (
    *("null", "true", "[]", "[1]", "{}", '{"a": 1}', "NaN", "-Infinity", "1e999", "1.5", "-0.0"),
    *("123456789012345678901234567890", '"\\ud800"', '"\\u0000"', '""', '"7"', "7", "[[[1]]]"),
    *("[" * 3000, '"a\tb"', "9" * 5000, '{"a": [null, "b", 1]}', '["a", 1]', "\\", "'x'", "True"),
)
_JSON_VALUE = re.compile(r"(?<=: )(\"[^\"]*\"|-?\d[\d.]*|null)")
_FUZZ = "01a,;|\t\"'\n\r {}[]:\\-/é\x00"


@dataclass(frozen=True)
class Damage:
    """One thing that goes wrong.

    Attributes:
        kind: What.
        place: Where, from 0 to 1.
        width: How far, in bytes or lines.
        piece: What is put there.
    """

    kind: str
    place: float
    width: int = 1
    piece: bytes = b""

    def apply(self, raw: bytes) -> bytes:
        """Return the damaged bytes."""
        if self.kind in _OF_LINES:
            lines = raw.splitlines(keepends=True) or [b""]
            row = int(self.place * len(lines)) % len(lines)
            return b"".join(_OF_LINES[self.kind](lines, row, self.piece))
        if self.kind == "json value":
            return self._with_json_value(raw)
        begin = int(self.place * len(raw))
        end = begin + self.width
        return {
            "turn": raw[:begin] + bytes(one ^ 1 for one in raw[begin:end]) + raw[end:],
            "cut": raw[:begin],
            "behead": raw[begin:],
            "take out": raw[:begin] + raw[end:],
            "double": raw[:end] + raw[begin:],
            "put in": raw[:begin] + self.piece + raw[begin:],
            "overwrite": raw[:begin] + self.piece + raw[begin + len(self.piece) :],
            "all": self.piece,
        }[self.kind]

    def _with_json_value(self, raw: bytes) -> bytes:
        text = raw.decode("latin-1")
        found = list(_JSON_VALUE.finditer(text))
        if not found:
            return raw + self.piece
        one = found[int(self.place * len(found)) % len(found)]
        return (text[: one.start()] + self.piece.decode() + text[one.end() :]).encode("latin-1")


_OF_LINES: dict[str, Callable[[list[bytes], int, bytes], list[bytes]]] = {
    "drop a line": lambda lines, row, _: lines[:row] + lines[row + 1 :],
    "drop the first line": lambda lines, row, _: lines[1:],
    "repeat a line": lambda lines, row, _: lines[: row + 1] + lines[row:],
    "repeat the first line": lambda lines, row, _: lines[:row] + lines[:1] + lines[row:],
    "swap lines": lambda lines, row, _: [
        *lines[row : row + 1], *lines[1:row], *lines[:1], *lines[row + 1 :],
    ],
    "join lines": lambda lines, row, _: [
        *lines[:row], lines[row].rstrip(b"\r\n"), *lines[row + 1 :],
    ],
    "lengthen a line": lambda lines, row, piece: [
        *lines[:row], lines[row].rstrip(b"\r\n") + piece + b"\n", *lines[row + 1 :],
    ],
    "replace a line": lambda lines, row, piece: [*lines[:row], piece + b"\n", *lines[row + 1 :]],
    "double a cell": lambda lines, row, piece: [
        *lines[:row], re.sub(rb"^([^,;|\t]*)[,;|\t]", rb"\1,\1,", lines[row]), *lines[row + 1 :],
    ],
    "empty a cell": lambda lines, row, piece: [
        *lines[:row], re.sub(rb"[^,;|\t\r\n]+", b"", lines[row], count=1), *lines[row + 1 :],
    ],
}  # fmt: skip

_place = st.integers(0, 997).map(lambda number: number / 998)
_pieces = st.sampled_from(_PIECES) | st.binary(max_size=20)
_bytewise = st.builds(
    Damage,
    st.sampled_from(["turn", "turn", "take out", "double", "put in", "put in", "overwrite"]),
    _place,
    st.sampled_from([1, 1, 2, 8, 100]),
    _pieces,
)
_cuts = st.builds(
    Damage, st.sampled_from(["cut", "cut", "behead"]), _place.map(lambda place: 0.1 + 0.9 * place)
)
_linewise = st.builds(Damage, st.sampled_from(sorted(_OF_LINES)), _place, st.just(1), _pieces)
_json = st.builds(
    Damage,
    st.just("json value"),
    _place,
    st.just(1),
    st.sampled_from(_JSON_VALUES).map(lambda text: text.encode()),
)
_texts = st.text(_FUZZ, min_size=9, max_size=200).map(lambda text: text.encode())
_whole = st.builds(
    Damage,
    st.just("all"),
    st.just(0.0),
    st.just(1),
    st.binary(min_size=9, max_size=200) | _texts | _texts,
)


def damages(*, is_json: bool = False) -> st.SearchStrategy[list[Damage]]:
    """Draw one or two things that go wrong with a file."""
    often = [_linewise] * 5 + [_bytewise] * 3 + ([_json] * 6 if is_json else [])
    return st.lists(st.one_of([*often, _cuts, _whole]), min_size=1, max_size=2)


def odd_columns(length: int, seed: int) -> dict[str, pa.Array]:
    """Return columns of all types that parquet keeps, however odd, some with values missing."""
    chosen = random.Random(seed)

    def some(make: Callable[[int], Any], gaps: float = 0.1) -> list[Any]:
        return [
            None if chosen.random() < gaps else make(chosen.randrange(9)) for _ in range(length)
        ]

    def array(kind: pa.DataType, make: Callable[[int], Any], gaps: float = 0.1) -> pa.Array:
        return pa.array(some(make, gaps), kind)

    dictionary = pa.DictionaryArray.from_arrays
    places = array(pa.int32(), int)
    return {
        "null": pa.nulls(length),
        "bool": array(pa.bool_(), bool),
        "list": array(pa.list_(pa.string()), lambda n: [str(n), None]),
        "large_list": array(pa.large_list(pa.float64()), lambda n: [n / 2] * n),
        "fixed_list": array(pa.list_(pa.int8(), 2), lambda n: [n, n]),
        "struct": array(pa.struct({"a": pa.int64(), "b": pa.string()}), lambda n: {"a": n}),
        "map": array(pa.map_(pa.string(), pa.int64()), lambda n: [(str(n), n)]),
        "structs_of_maps": array(
            pa.struct({"a": pa.map_(pa.string(), pa.null())}), lambda n: {"a": [(str(n), None)]}
        ),
        "binary": array(pa.binary(), lambda n: bytes([n, 255])),
        "large_binary": array(pa.large_binary(), lambda n: str(n).encode()),
        "fixed_binary": array(pa.binary(2), lambda n: bytes([48 + n] * 2)),
        "uuid": pa.ExtensionArray.from_storage(
            pa.uuid(), array(pa.binary(16), lambda n: bytes([n + 120] * 16))
        ),
        "string_view": array(pa.string_view(), str),
        "binary_view": array(pa.binary_view(), lambda n: str(n).encode()),
        "views": array(pa.list_(pa.string_view()), lambda n: [str(n)]),
        "list_view": array(pa.list_view(pa.int64()), lambda n: [n]),
        "json": pa.ExtensionArray.from_storage(pa.json_(), array(pa.string(), str)),
        "decimal": array(pa.decimal128(20, 2), lambda n: Decimal(n) / 4),
        "decimal256": array(pa.decimal256(60, 0), lambda n: Decimal(10) ** 40 + n),
        "decimal32": array(pa.decimal32(5, 1), lambda n: Decimal(n) / 2),
        "float16": array(pa.float16(), float),
        "float": array(pa.float32(), lambda n: [n, 1e30, float("nan"), float("inf"), -n][n % 5]),
        "double": array(pa.float64(), lambda n: [n, 2.0**53 + n, 1e300, -0.0, n][n % 5]),
        "int8": array(pa.int8(), lambda n: n - 4),
        "uint64": array(pa.uint64(), lambda n: 2**64 - 1 - n),
        "int64": array(pa.int64(), lambda n: [n, 2**62 + n, -(2**62) - n][n % 3]),
        "time32": array(pa.time32("s"), lambda n: 3600 * n),
        "time64": array(pa.time64("ns"), lambda n: 10**12 * n, 0.0),
        "duration": array(pa.duration("ms"), lambda n: timedelta(n)),
        "date32": array(pa.date32(), lambda n: [n, 10**6 * n, -(10**5) * n][n % 3]),
        "date64": array(pa.date64(), lambda n: 86400000 * n),
        "timestamp": array(pa.timestamp("ns"), lambda n: 10**18 * n),
        "seconds": array(pa.timestamp("s", "+05:30"), lambda n: 10**10 * n),
        "dictionary": dictionary(places, pa.array([str(n) for n in range(9)])),
        "numbers": dictionary(places, pa.array([10 * n for n in range(9)])),
        "binaries": dictionary(places, pa.array([bytes([200 + n]) for n in range(9)])),
        "days": dictionary(places, pa.array(range(9), pa.int32()).cast(pa.date32())),
        "texts": array(
            pa.large_string(), lambda n: ["", " ", "now", "2001-01-01", "7", "a\nb"][n % 6]
        ),
        "words": array(pa.string(), lambda n: f"{n} {n + 1}"),
    }  # fmt: skip
