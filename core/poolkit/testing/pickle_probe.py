"""Unpickles objects in a fresh interpreter, as a worker does, and sends them back. Run by the checks of `importing`."""

from __future__ import annotations

import base64
import json
import pickle
from typing import cast

from poolkit.testing.fresh import take_question

__all__: list[str] = []


def main() -> None:
    """Answer the question on standard input: a list of pickles, each in base64."""
    question, answer = take_question(output_to=2)
    answers = [_echo(sent) for sent in cast("list[str]", question)]
    with answer:
        answer.write(json.dumps(answers).encode())


def _echo(sent: str) -> dict[str, str]:
    try:
        thing = pickle.loads(base64.b64decode(sent))  # noqa: S301 - the parent wrote it
        return {"back": base64.b64encode(pickle.dumps(thing)).decode()}
    except Exception as error:  # noqa: BLE001 - unpickling runs the plugin's own code
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
