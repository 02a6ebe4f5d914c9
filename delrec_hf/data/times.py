"""Times however they are written, as numbers that grow with time."""

import re
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from delrec_hf.data.problems import shown
from delrec_hf.errors import InputError

BoolArray = npt.NDArray[np.bool_]

_SAMPLE = 200

_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_FORMS = (
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S",
    "%a, %d %b %Y %H:%M:%S %z",
    "%m %d, %Y",
    "%Y/%m/%d %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S %z",
    "%d %b %Y, %H:%M",
    *("".join(parts) for parts in product(("%Y/%m/%d", "%Y.%m.%d"), _CLOCKS)),
    *("".join(parts) for parts in product(("%b %d, %Y", "%B %d, %Y"), _CLOCKS)),
    *("".join(parts) for parts in product(("%d %b %Y", "%d %B %Y", "%d-%b-%Y"), _CLOCKS)),
    *("".join(parts) for parts in product(("%d-%b-%y",), _CLOCKS)),
)
"""Forms that can be meant in one way only, ISO 8601 apart."""

_DAY_OR_MONTH_FIRST = tuple(
    (f"%d{mark}%m{mark}{year}{clock}", f"%m{mark}%d{mark}{year}{clock}")
    for mark, year, clock in product("/.-", ("%Y", "%y"), _CLOCKS)
)
"""Forms in which the day comes first or the month; the values have to tell."""

_UTC = re.compile(r"\s*(UTC|GMT)(?:[+]0{1,4})?$")

NO_TIME = "is not a time; expected a number or an ISO date such as 2001-12-31T23:59:59"


@dataclass(frozen=True)
class Times:
    """A column of times.

    Attributes:
        numbers: `(rows,)` int64 or float64 that grow with time; 0 where there is none.
        bad: `(rows,)` whether the value is not a time.
        unit: What one of `numbers` is (`s`, `ms`, `us`, `ns`, since 1970), or `` where the source
            has numbers and does not say.
        form: How it was written.
    """

    numbers: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    bad: BoolArray
    unit: str
    form: str


def read_times(values: pa.ChunkedArray, label: str, form: str | None = None) -> Times:
    """Read times without loss of precision.

    Whole numbers become int64, other numbers float64, dates int64 of the finest unit among them; a
    date without a zone counts as UTC. Texts are numbers, ISO 8601 dates or dates of one of the
    usual forms, whichever most of them are.

    Args:
        values: Numbers, typed dates or texts.
        label: What the column is called in messages.
        form: How texts are written, as strptime has it; None: as they show.

    Raises:
        InputError: If the column holds nothing of the kind, or the values do not tell whether the
            day comes first or the month.
    """
    kind = values.type
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _typed(values)
    if pa.types.is_boolean(kind):
        raise InputError(_no_times(label, kind))
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_number and form is None:
        return _numbers(values)
    try:
        texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    except pa.ArrowException as error:
        raise InputError(_no_times(label, kind)) from error
    if form is not None:
        return _of_form(texts, form)
    numbers = _of_texts(texts)
    return numbers if not numbers.bad.any() else min(_dates(texts, label), numbers, key=_badness)


def clock_seconds(values: pa.ChunkedArray) -> npt.NDArray[np.float64] | None:
    """Return seconds since midnight, NaN where there is no value.

    None if a value is no time of day (23:59, 23:59:59, 2359, 11:59 PM), or if there is none at all.
    """
    if pa.types.is_time(values.type):
        unit = values.type.unit
        whole = values.cast(pa.int32()).cast(pa.int64()) if unit in ("s", "ms") else values
        per = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
        return np.asarray(whole.cast(pa.int64()).to_pandas(), dtype=np.float64) / per
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    if not pa.types.is_string(values.type):
        return None
    trimmed = pc.fill_null(pc.utf8_trim_whitespace(values), "")
    texts = pd.Series(trimmed.to_pandas(), dtype="str")
    missing = texts == ""
    found = texts.str.extract(
        r"(?i)^(\d{1,2}?):?([0-5]\d)(?::?([0-5]\d(?:\.\d+)?))?(?:\s?([AP])\.?M\.?)?$"
    )
    hours = pd.to_numeric(found[0], errors="coerce")
    bare_minutes = texts.str.fullmatch(r"\d|[0-5]\d")  # 5: five past midnight, as 0005 loses zeros
    hours = hours.mask(bare_minutes, 0)
    minutes = pd.to_numeric(found[1].mask(bare_minutes, texts), errors="coerce")
    seconds = pd.to_numeric(found[2], errors="coerce").fillna(0)
    half = found[3].str.upper()
    hours = hours.where(half.isna(), hours % 12 + 12 * (half == "P"))
    is_clock = hours.notna() & (hours <= 23) & minutes.notna()
    if missing.all() or not (is_clock | missing).all():
        return None
    return np.asarray(hours * 3600 + minutes * 60 + seconds, dtype=np.float64)


def moment(number: float, unit: str) -> str:
    """Return a time as a date, if it can be one; a number without a unit is told by its size.

    >>> moment(1500000000, ""), moment(1500000000123, ""), moment(7, "")
    ('2017-07-14', '2017-07-14', '7')
    """
    if not unit:
        sizes = {"s": 1e8, "ms": 1e11, "us": 1e14, "ns": 1e17}
        unit = next((one for one, size in sizes.items() if size <= number < 50 * size), "")
    if not unit:
        return f"{number:g}" if isinstance(number, float) else str(number)
    try:
        return str(np.array(int(number)).astype(f"datetime64[{unit}]").astype("datetime64[D]"))
    except (OverflowError, ValueError):
        return str(number)


def _typed(values: pa.ChunkedArray) -> Times:
    bad = np.asarray(pc.is_null(values).to_numpy())
    kind = values.type
    is_short = pa.types.is_date32(kind) or pa.types.is_time32(kind)
    whole = values.cast(pa.int32()) if is_short else values
    numbers = pc.fill_null(whole.cast(pa.int64()), 0).to_numpy()
    unit = getattr(kind, "unit", "ms")
    if pa.types.is_date32(kind):
        unit = "D"
    return Times(numbers, bad, unit, "dates")


def _no_times(label: str, kind: pa.DataType) -> str:
    return f"{label} holds {kind}, not times; set data.timestamp_column to the column that does"


def _badness(times: Times) -> int:
    return int(times.bad.sum())


def _numbers(values: pa.ChunkedArray) -> Times:
    kind = pa.int64() if pa.types.is_integer(values.type) else pa.float64()
    try:
        values = values.cast(kind)
    except pa.ArrowInvalid:  # whole numbers above 2^63
        values = values.cast(pa.float64(), safe=False)
    bad = ~np.asarray(pc.fill_null(pc.is_finite(values), False).to_numpy())
    return Times(pc.fill_null(values, 0).to_numpy(), bad, "", "numbers")


def _of_texts(texts: pa.ChunkedArray) -> Times:
    """Read texts as numbers; whole ones are exact, if all that are numbers are whole."""
    try:
        return _numbers(texts.cast(pa.int64()))
    except pa.ArrowInvalid:
        numbers = pd.to_numeric(texts.to_pandas(), errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    try:
        whole = np.zeros(len(bad), dtype=np.int64)
        whole[~bad] = texts.filter(pa.array(~bad)).cast(pa.int64()).to_numpy()
        return Times(whole, bad, "", "numbers")
    except pa.ArrowInvalid:
        return Times(np.where(bad, 0.0, numbers), bad, "", "numbers")


def _of_form(texts: pa.ChunkedArray, form: str) -> Times:
    dates = _series(texts)
    if "%Z" not in form:
        dates = dates.str.replace(_UTC, "", regex=True)
    return _as_times(_parsed(dates, form), form)


def _dates(texts: pa.ChunkedArray, label: str) -> Times:
    plain = _series(texts).str.replace(_UTC, "", regex=True)
    sample = plain[plain.notna() & (plain != "")].iloc[:_SAMPLE]
    best = _as_times(_parsed(plain, "ISO8601"), "ISO dates")
    if best.bad.any():
        for one in _FORMS:
            if _parsed(sample, one).notna().sum() * 2 > len(sample):
                best = min(best, _as_times(_parsed(plain, one), one), key=_badness)
        best = min(best, _by_place(plain, sample, label, best), key=_badness)
    return best


def _series(texts: pa.ChunkedArray) -> "pd.Series[str]":
    """Return texts without the two words that pandas takes for the time at which it reads them."""
    series = pd.Series(texts.to_pandas(), dtype="str")
    return series.mask(series.isin(["now", "today"]))


def _by_place(plain: "pd.Series[str]", sample: "pd.Series[str]", label: str, best: Times) -> Times:
    """Read dates in which the day or the month comes first, where the values tell which."""
    for forms in _DAY_OR_MONTH_FIRST:
        if not any(_parsed(sample, one).notna().sum() * 2 > len(sample) for one in forms):
            continue
        day, month = (_as_times(_parsed(plain, one), one) for one in forms)
        is_open = day.bad.sum() == month.bad.sum() < best.bad.sum()
        if is_open and (day.numbers != month.numbers).any():
            raise InputError(
                f"{label} holds dates such as `{shown(sample.iloc[0])}`, and none tells whether "
                f"the day or the month comes first; set data.timestamp_format to `{forms[0]}` or "
                f"`{forms[1]}`"
            )
        best = min(best, day, month, key=_badness)
    return best


def _parsed(texts: "pd.Series[str]", form: str) -> "pd.Series[pd.Timestamp]":
    try:
        return pd.to_datetime(texts, format=form, utc=True, errors="coerce")
    except ValueError as error:  # a form that strptime does not know
        raise InputError(
            f"recipe key `data.timestamp_format` is `{form}`, which cannot be used ({error}); "
            "expected a form such as `%d/%m/%Y %H:%M`"
        ) from error


def _as_times(dates: "pd.Series[pd.Timestamp]", form: str) -> Times:
    bad = dates.isna().to_numpy()
    unit = dates.dt.unit
    numbers = np.array(dates.astype("int64"), dtype=np.int64)
    numbers[bad] = 0
    return Times(numbers, bad, unit, form)
