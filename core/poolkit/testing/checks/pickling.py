"""The check that a plugin gets to worker processes."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator
from typing import cast

from poolkit.registry import TASKS
from poolkit.testing.checks.check import check
from poolkit.testing.checks.contract import settings_can_be_given
from poolkit.testing.checks.subject import NotApplicableError, Subject, tell
from poolkit.testing.fresh import run_fresh

__all__ = ["descriptors_pickle"]


@check(since="0.1", needs=(settings_can_be_given,))
def descriptors_pickle(subject: Subject) -> Iterator[str]:
    """Descriptors and settings get to a worker process and back, and stay what they are."""
    parts: dict[str, object] = {}
    if subject.plugin.in_group(TASKS):
        parts |= {f"task {task.name!r}": task for task in subject.tasks.values()}
    for model in subject.settings_models:
        parts[f"its settings ({model.__name__})"] = model.model_validate(subject.settings_of(model))
    if not parts:
        raise NotApplicableError("the plugin has neither descriptors nor settings")
    sent: dict[str, str] = {}
    for name, part in parts.items():
        try:
            sent[name] = base64.b64encode(pickle.dumps(part)).decode()
        except Exception as error:  # noqa: BLE001 - pickling runs the plugin's own code
            yield f"{name} cannot be pickled: {tell(error)}."
    answers = cast("list[dict[str, str]]", run_fresh("poolkit.testing.pickle_probe", list(sent.values())))
    for name, answer in zip(sent, answers, strict=True):
        if "error" in answer:
            yield f"{name} cannot be unpickled in another process: {answer['error']}."
        elif pickle.loads(base64.b64decode(answer["back"])) != parts[name]:  # noqa: S301 - our own probe wrote it
            yield f"{name} comes back from another process as something else."
