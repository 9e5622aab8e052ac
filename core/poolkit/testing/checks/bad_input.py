"""The check that wrong input is the caller's fault, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator

from poolkit.errors import RequestError
from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.checks.bodies import Body, Path, paths, put
from poolkit.testing.checks.check import check
from poolkit.testing.checks.subject import Subject, tell
from poolkit.testing.checks.trials import Trial, trials

__all__ = ["bad_input_is_refused"]

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
"""Each is put in the place of each value of each example: many are refused by the schema, the others must be borne."""

LONGEST_VALUE = 40


@check(since="0.1", needs=(examples_are_answered,))
def bad_input_is_refused(subject: Subject) -> Iterator[str]:
    """Whatever stands in a field, a request is answered or refused with a reason: it is never the server's fault."""
    for trial in trials(subject):
        for path in _fields(trial):
            for value in WRONG_VALUES:
                problem = _problem(trial, put(trial.body, path, value))
                if problem is not None:
                    yield f"{trial.where} with {_shown(path)} = {_cut(repr(value))}: {problem}"
                    break


def _fields(trial: Trial) -> list[Path]:
    """Return where the example has values, and the fields that it leaves out."""
    fields = trial.operation.request.model_fields.items()
    absent = ((field.alias or name,) for name, field in fields if (field.alias or name) not in trial.body)
    return [*paths(trial.body), *absent]


def _problem(trial: Trial, body: Body) -> str | None:
    try:
        trial.ask(body)
    except RequestError as error:
        return None if str(error) else "refused without a word."
    except Exception as error:  # noqa: BLE001 - whatever is raised is the finding
        return _cut(tell(error), 4 * LONGEST_VALUE)
    return None


def _shown(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _cut(text: str, longest: int = LONGEST_VALUE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
