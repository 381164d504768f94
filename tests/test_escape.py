"""What others say - edges, files, tasks - makes no terminal act and forges no line of a log."""

from __future__ import annotations

import io
import json
import logging
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot import errors
from splitiot._escape import escaped, escaped_json
from splitiot._log import logger
from splitiot.errors import MissingDependencyError, RemoteError, SplitiotError, TransportTimeout
from splitiot.session import Trouble
from tests.cli.test_escapes import EVIL, acting


def test_every_character_that_acts_is_escaped() -> None:
    every = [chr(code) for code in range(0x110000)]
    controls = {c for c in every if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\n", "\t"}
    turns = {c for c in every if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF")}
    turns |= {c for c in every if unicodedata.bidirectional(c) in ("LRI", "RLI", "FSI", "PDI")}
    assert {c for c in every if escaped(c) != c} == controls | turns | {"\u200e", "\u200f", "\u061c"}


@given(st.text())
def test_what_is_harmless_stays_and_all_is_harmless_then(text: str) -> None:
    shown = escaped(text)
    assert escaped(shown) == shown
    if not acting(text):
        assert shown == text


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_says_the_same(value: object) -> None:
    text = escaped_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert not acting(text)


ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SplitiotError)]


@pytest.mark.parametrize("kind", ALL)
def test_no_error_of_ours_says_it_raw(kind: type[SplitiotError]) -> None:
    error = MissingDependencyError(EVIL, EVIL) if kind is MissingDependencyError else kind(EVIL)
    assert not acting(str(error))
    assert "\\x1b]0;owned\\x07" in str(error)
    assert EVIL in error.args[0]


def test_nor_does_trouble() -> None:
    assert not acting(str(Trouble(EVIL, 0.0, EVIL)))


def logged(template: str, *words: object, cause: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        logger.warning(template, *words, exc_info=cause)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def test_the_log_has_no_raw_words_and_no_forged_lines() -> None:
    forged = f"gone{EVIL}\nWARNING all is well"
    for words in (forged, ValueError(forged), RemoteError(forged), Trouble(forged, 0.0)):
        text = logged("the edge: %s", words)
        assert not acting(text)
        assert "\\x1b]0;owned" in text
        assert "\nWARNING" not in text
    assert not acting(logged("raised %r", ValueError(forged)))


def test_nor_has_a_traceback_in_it() -> None:
    text = logged("it raised", cause=ValueError(EVIL))
    assert "ValueError: " in text
    assert not acting(text)


def test_numbers_stay_numbers_in_the_log() -> None:
    assert logged("%d %.1f %s %05d %x %r", 3, 0.25, None, np.int64(7), 255, "it's") == (
        "WARNING 3 0.2 None 00007 ff \"it's\"\n"
    )
    assert logged("100 % is no template") == "WARNING 100 % is no template\n"


def test_python_sees_its_own_errors_too() -> None:
    assert isinstance(TransportTimeout("x"), TimeoutError)
    assert str(TransportTimeout("no answer")) == "no answer"
    assert str(SplitiotError()) == ""
    assert str(SplitiotError("a", 2)) == "('a', 2)"
