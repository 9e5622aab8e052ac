"""Checks of unusual input: it is answered, or it is the caller's fault."""

from __future__ import annotations

from collections.abc import Iterator

from poolkit.errors import RequestError
from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.checks.bodies import Body, Path, paths, put, show_path, texts_in, value_at
from poolkit.testing.checks.cases import Case, cases
from poolkit.testing.checks.check import check
from poolkit.testing.checks.plugin import PluginUnderTest, format_error

__all__ = ["any_script_is_answered", "bad_input_is_refused"]

WRONG_VALUES: tuple[object, ...] = (
    "",
    " ",
    "\x00",
    "🙂",
    "word " * 5000,
    "x" * 100_000,
    0,
    -1,
    2**63,
    -0.5,
    1e308,
    True,
    None,
    [""],
    [[]],
    {},
)
"""Each is put in the place of each value of each example, and must be answered or refused."""

SCRIPTS = {
    "Chinese": "東京は日本の首都です。",
    "Arabic": "القط على السجادة",
    "Hebrew": "חתול על השטיח",
    "Hindi": "बिल्ली चटाई पर",
    "an emoji of several characters": "👩🏽\u200d🚀 🇫🇷",
    "combining accents": "Zu\u0308rich e\u0301te\u0301",
    "letters beyond the basic plane": "\U0001d518\U0001d52b\U0001d526 \U00010348",
}

MAX_SHOWN = 40


@check(since="0.1", needs=(examples_are_answered,))
def bad_input_is_refused(plugin: PluginUnderTest) -> Iterator[str]:
    """An unusual value in any field is answered, or refused with a reason: it is never the server's fault."""
    for case in cases(plugin):
        for path in _fields(case):
            for value in WRONG_VALUES:
                problem = _problem(case, put(case.body, path, value))
                if problem is not None:
                    yield f"{case.where} with {show_path(path)} = {_cut(repr(value))}: {problem}"
                    break


@check(since="0.1", needs=(bad_input_is_refused,))
def any_script_is_answered(plugin: PluginUnderTest) -> Iterator[str]:
    """A free text is accepted in any script."""
    for case in cases(plugin):
        for path in texts_in(case.body):
            text = value_at(case.body, path)
            if isinstance(case.try_to_ask(put(case.body, path, f"{text} a")), Exception):
                continue  # not any text will do
            for script, words in SCRIPTS.items():
                answer = case.try_to_ask(put(case.body, path, f"{text} {words}"))
                if isinstance(answer, Exception):
                    told = _cut(format_error(answer), 4 * MAX_SHOWN)
                    yield f"{case.where} with {script} in {show_path(path)}: {told}"
                    break


def _fields(case: Case) -> list[Path]:
    """Return where the example has values, and the fields that it leaves out."""
    fields = case.operation.request.model_fields.items()
    absent = ((field.alias or name,) for name, field in fields if (field.alias or name) not in case.body)
    return [*paths(case.body), *absent]


def _problem(case: Case, body: Body) -> str | None:
    answer = case.try_to_ask(body)
    if isinstance(answer, RequestError):
        return None if str(answer) else "refused without a word."
    return _cut(format_error(answer), 4 * MAX_SHOWN) if isinstance(answer, Exception) else None


def _cut(text: str, size: int = MAX_SHOWN) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"
