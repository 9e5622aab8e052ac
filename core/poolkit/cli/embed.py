"""`poolkit embed`: a file of texts in, a file of vectors out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from poolkit.cli.options import MODEL_SETTINGS, takes_settings
from poolkit.cli.texts import Source, read_texts
from poolkit.config import ModelConfig
from poolkit.errors import BatchError, RequestError
from poolkit.registry import Registry
from poolkit.settings.settings import Resolved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["embed"]

OPERATION = "embeddings"

MOST_TOLD = 10
"""Failed lines that are told one by one."""


@takes_settings(model_is_positional=False, only=MODEL_SETTINGS)
def embed(
    resolved: Resolved,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A text a line; or .jsonl: strings, or objects with a text; or - .")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="out.npy or out.jsonl.")],
    truncate_prompt_tokens: Annotated[
        int | None, typer.Option(help="Cut longer texts to so many tokens; -1 is the model's maximum.", min=-1)
    ] = None,
) -> None:
    """Turn a file of texts into a file of vectors.

    Row i of out.npy, or line i of out.jsonl, is the vector of the i-th text.
    """
    write = {".npy": _write_npy, ".jsonl": _write_jsonl}.get(output.suffix)
    if write is None:
        raise typer.BadParameter(f"{str(output)!r} must end in .npy or .jsonl", param_hint="--output")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(output.parent)!r}", param_hint="--output")
    source = read_texts(file)
    from poolkit.offline.progress import progress_bar
    from poolkit.operations import EmbeddingsRequest, EmbeddingsResponse
    from poolkit.pipeline.served import load_model  # loads torch: only a command that runs a model needs it

    request = EmbeddingsRequest(input=list(source.texts), truncate_prompt_tokens=truncate_prompt_tokens)
    served = load_model(_for_embeddings(resolved), resolved.plugins)
    with closing(served), progress_bar(OPERATION) as on_progress:
        if OPERATION not in served.operations:
            raise RequestError(f"The task {served.task.name!r} makes no embeddings. Leave out --task.")
        started = perf_counter()
        try:
            response = served.run(OPERATION, request, on_progress=on_progress)
        except BatchError as error:
            raise RequestError(_told(error, source)) from error
        seconds = perf_counter() - started
    assert isinstance(response, EmbeddingsResponse)
    write(output, response.embeddings, source)
    count, width = response.embeddings.shape
    typer.echo(
        f"Wrote {count} vectors of {width} numbers to {output} "
        f"({count / seconds:,.0f} texts/s, {response.usage.total_tokens / seconds:,.0f} tokens/s).",
        err=True,
    )


def _for_embeddings(resolved: Resolved) -> ModelConfig:
    """Return the model's settings, with the first task that makes embeddings unless the user names one."""
    settings = resolved.settings
    if settings.task is not None or settings.pooler_config.task is not None:
        return settings
    offering = Registry.load(resolved.plugins).tasks_offering(OPERATION)
    return settings.model_copy(update={"task": next(iter(offering), None)})


def _told(error: BatchError, source: Source) -> str:
    told = [f"{source.place(index)}: {error.errors[index]}" for index in sorted(error.errors)[:MOST_TOLD]]
    untold = len(error.errors) - len(told)
    more = [f"and {untold} more."] if untold else []
    return "\n  ".join([f"{len(error.errors)} of {len(source.texts)} texts failed; nothing was written.", *told, *more])


def _write_npy(path: Path, embeddings: NDArray[np.float32], _: Source) -> None:
    import numpy as np

    np.save(path, embeddings)


def _write_jsonl(path: Path, embeddings: NDArray[np.float32], source: Source) -> None:
    with path.open("wb") as stream:
        for index, (text, embedding) in enumerate(zip(source.texts, embeddings, strict=True)):
            line = {"index": index, "text": text, "embedding": embedding}
            stream.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
