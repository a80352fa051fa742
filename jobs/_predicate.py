"""The text of a predicate over frames, taken apart before Spark sees it: what it may say, and whom it names.

An allow-list, of words and of functions: nothing in it reads tables, runs code, or gives something else when it is
asked again. What Spark then makes of the text is Spark's to say (see `_select`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from visionlake.expectations import frames, media
from visionlake.expectations._table import Table

from ._sql import quoted
from ._stages import one_of

MEDIA, MODELS = "media", "models"


def _facts(table: Table) -> tuple[str, ...]:
    """The columns that say something of a row, and no picture."""
    return tuple(c.name for c in table.columns if c.type != "binary" and not c.volatile)


FRAME_COLUMNS, MEDIA_COLUMNS = _facts(frames.TABLE), _facts(media.TABLE)
COLUMNS = (*FRAME_COLUMNS, MEDIA, MODELS)

_WORDS = """
and or not in is null true false between like ilike rlike escape case when then else end as div interval
year years month months week weeks day days hour hours minute minutes second seconds
string boolean tinyint smallint int integer bigint long float real double decimal date timestamp array
"""
_CALLS = """
abs ceil ceiling floor round bround sign signum sqrt cbrt exp ln log log2 log10 log1p pow power mod pmod greatest
least sin cos tan asin acos atan atan2 degrees radians hypot isnan nanvl try_add try_subtract try_multiply
try_divide try_mod width_bucket bit_count conv hex unhex positive negative
coalesce if ifnull nullif nvl nvl2 isnull isnotnull equal_null cast try_cast nullifzero zeroifnull
lower lcase upper ucase length char_length character_length trim ltrim rtrim btrim substring substr left right
concat concat_ws replace translate startswith endswith contains instr locate position like ilike rlike regexp
regexp_like regexp_count regexp_extract regexp_replace regexp_substr regexp_instr split split_part reverse repeat
lpad rpad levenshtein to_number try_to_number string
date timestamp to_date to_timestamp try_to_date try_to_timestamp date_trunc trunc date_add date_sub datediff
date_diff date_part date_format add_months months_between year quarter month day dayofmonth dayofweek dayofyear
weekday weekofyear hour minute second to_unix_timestamp timestamp_seconds make_date make_timestamp
array size cardinality array_contains array_position array_max array_min array_distinct array_size array_compact
array_intersect array_union array_except array_join arrays_overlap element_at try_element_at get slice sort_array
array_sort exists forall filter transform aggregate reduce zip_with flatten sequence
hash xxhash64 crc32 md5 sha1 sha2
"""
KEYWORDS, FUNCTIONS = frozenset(_WORDS.split()), frozenset(_CALLS.split())
_TIMES_OF_ASKING = re.compile(r"\W*(now|today|tomorrow|yesterday)", re.IGNORECASE)

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<raw>[rR](?:'[^']*'|"[^"]*"))
  | (?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
  | (?P<quoted>`(?:[^`]|``)*`)
  | (?P<comment>--|/\*)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:[lLsSyYfFdD]|[bB][dD])?(?!\w))
  | (?P<word>[A-Za-z_]\w*)
  | (?P<sign>->|<=>|<>|[=<>!]=?|[-+*/%(),.\[\]&|^~])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def name(self) -> str:
        """A word or quoted name as Spark compares it."""
        return self.text[1:-1].replace("``", "`") if self.kind == "quoted" else self.text

    @property
    def value(self) -> str:
        """What a piece of text holds."""
        if self.kind == "raw":
            return self.text[2:-1]
        return re.sub(r"\\(.)", r"\1", self.text[1:-1], flags=re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A model that the text names, and where."""

    name: str
    start: int
    end: int


def check_predicate(text: str) -> None:
    """Raises ValueError where a predicate says what is not allowed; what is wrong, and what is allowed instead."""
    tokens = list(_tokens(text))
    variables = _variables(tokens)
    for before, token, after in _with_neighbours(tokens):
        if token.kind in ("word", "quoted") and after == "(":
            _check_call(token, is_field=before == ".")
        elif token.kind in ("word", "quoted") and before != ".":
            _check_word(token, variables)
        elif token.kind in ("text", "raw") and after in ("(", "."):  # some sessions take it for a name
            raise ValueError(f"{token.text}{after} is not allowed in a predicate; names stand bare or in `...`")
        elif token.kind == "text" and before in ("date", "timestamp") and "\\" in token.text:
            raise ValueError(f"{before} {token.text}: a date is written without backslashes")
        elif token.kind in ("text", "raw") and before in ("date", "timestamp") and _TIMES_OF_ASKING.match(token.value):
            raise ValueError(f"{before} {token.text} gives something else every day; give a date")
    _named(tokens)


def named_models(text: str) -> tuple[str, ...]:
    """The models that a predicate names, as `models['name']`. Raises ValueError for another use of `models`."""
    return tuple(dict.fromkeys(each.name for each in _named(list(_tokens(text)))))


def tables_named(text: str) -> tuple[str, ...]:
    """The tables beside `frames` that a predicate asks."""
    words = {token.name.lower() for before, token, _ in _with_neighbours(list(_tokens(text))) if before != "."}
    return tuple(table for word, table in ((MEDIA, "media"), (MODELS, "detections")) if word in words)


def with_models(text: str, names: Mapping[str, str]) -> str:
    """The predicate with models called by other names."""
    for each in reversed(_named(list(_tokens(text)))):
        if names[each.name] != each.name:
            text = f"{text[: each.start]}[{quoted(names[each.name])}]{text[each.end :]}"
    return text


def sections_named(names: Collection[str], known: Mapping[str, Sequence[str]]) -> tuple[set[str], list[str]]:
    """The sections that these names of models mean, and in words what is wrong with names that mean none or several.

    `known` maps what a section may be called to the sections called so. A name with an @ may be a `model_id`.
    """
    found, wrong = set(), []
    for name in names:
        labels = known.get(name, ())
        if len(labels) > 1:
            wrong.append(f"{name!r} means several sections: write {' or '.join(map(repr, labels))}")
        elif not labels and "@" not in name:
            near = one_of(name, sorted(known))
            wrong.append(f"no section is called {name!r}; {near}, or the whole model_id of labels that are in the lake")
        found |= {*labels}
    return found, wrong


def _tokens(text: str) -> Iterator[_Token]:
    """The parts of the text without the spaces. Raises ValueError for what is no part of a predicate."""
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        kind = found.lastgroup if found else None
        if found is None or kind is None or kind == "comment":
            raise ValueError(f"{text[place : place + 10]!r} is not allowed; allowed is one SQL predicate over a frame")
        if kind != "space":
            yield _Token(kind=kind, text=found[0], start=place)
        place = found.end()


def _variables(tokens: Sequence[_Token]) -> set[str]:
    """The letters that stand for elements: `x` in `exists(labels, x -> x = 'car')`. Longer names could be SQL's own."""
    found: set[str] = set()
    for place, token in enumerate(tokens):
        if token.text != "->":
            continue
        start = place - 1
        if start >= 0 and tokens[start].text == ")":
            while start > 0 and tokens[start].text != "(":
                start -= 1
        names = [each.text for each in tokens[max(start, 0) : place] if each.text not in ("(", ",", ")")]
        if not all(re.fullmatch("[A-Za-z]", name) for name in names):
            raise ValueError(f"{' '.join(names)} -> ...: elements are called by one letter, as in x -> x = 'car'")
        found |= {name.lower() for name in names}
    return found


def _with_neighbours(tokens: Sequence[_Token]) -> Iterator[tuple[str, _Token, str]]:
    """Each token with the text before and after it, in lower case; empty at the ends."""
    texts = ["", *(token.text.lower() for token in tokens), ""]
    return zip(texts, tokens, texts[2:], strict=False)


def _check_call(token: _Token, *, is_field: bool) -> None:
    name = token.name.lower()
    if token.kind == "quoted" or is_field or name not in (*FUNCTIONS, *KEYWORDS):
        near = one_of(name, sorted(FUNCTIONS))
        raise ValueError(f"{token.text}(...) is not allowed in a predicate; {near}")


def _check_word(token: _Token, variables: Collection[str]) -> None:
    name = token.name.lower()
    if name in COLUMNS or name in variables or (token.kind == "word" and name in KEYWORDS):
        return
    raise ValueError(f"{token.text} is no column of a frame; {one_of(name, COLUMNS)}")


def _named(tokens: Sequence[_Token]) -> list[_Named]:
    """Where the text names models. Raises ValueError where `models` is used in another way."""
    found = []
    for place, token in enumerate(tokens):
        is_field = place > 0 and tokens[place - 1].text == "."
        if token.kind not in ("word", "quoted") or token.name.lower() != MODELS or is_field:
            continue
        rest = tokens[place + 1 : place + 4]
        if [each.text for each in rest[:1]] == ["."] and len(rest) > 1 and rest[1].kind in ("word", "quoted"):
            name, last = rest[1].name, rest[1]
        elif [each.text for each in (*rest[:1], *rest[2:])] == ["[", "]"] and rest[1].kind in ("text", "raw"):
            name, last = rest[1].value, rest[2]
        else:
            raise ValueError("models is used as models['name'], the name of a section or a whole model_id")
        found.append(_Named(name=name, start=rest[0].start, end=last.start + len(last.text)))
    return found
