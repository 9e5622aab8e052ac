"""`poolkit inspect`: what would be served of a model, how, and where each value comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poolkit.cli.options import MODEL_SETTINGS, takes_settings
from poolkit.settings.settings import Resolved

if TYPE_CHECKING:
    from poolkit.contract import Decision, ModelInfo
    from poolkit.engine.choice import EngineChoice

__all__ = ["inspect"]


@takes_settings(model_is_positional=True, only=MODEL_SETTINGS)
def inspect(
    resolved: Resolved,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show how a model would be served, without loading its weights.

    The values are those of the report that  poolkit serve  with the same options logs at its start, each with where it
    comes from, and so are the errors. Below: the tasks that the model can serve, best first, and why not the others.
    """
    from poolkit.pipeline import prepare_model, report, report_quarantined

    prepared = prepare_model(resolved.settings, resolved.plugins)
    with closing(prepared.task):
        decisions = [
            *report(prepared.info, prepared.task.task),
            *_decide(prepared.engines, prepared.info),
            *report_quarantined(prepared.registry),
        ]
        tasks = prepared.registry.supported_tasks(prepared.info)
        reasons = prepared.registry.unsupported_reasons(prepared.info)
    if as_json:
        content = {
            "decisions": [
                {"name": decision.name, "value": decision.value, "source": decision.source} for decision in decisions
            ],
            "tasks": tasks,
            "refused_tasks": reasons,
        }
        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        return
    _print(("name", "value", "source"), [(one.name, one.value, one.source) for one in decisions])
    typer.echo()
    _print(
        ("task", "served"),
        [*((name, "yes") for name in tasks), *((name, f"no: {why}") for name, why in reasons.items())],
    )


def _decide(engines: EngineChoice, info: ModelInfo) -> Sequence[Decision]:
    """Return which engine it is, and what it decides before the weights are read, if it says."""
    decide: Callable[[ModelInfo], Sequence[Decision]] | None
    decide = getattr(engines.current(info).provider, "decide", None)
    return (engines.decision(info), *(() if decide is None else decide(info)))


def _print(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)
