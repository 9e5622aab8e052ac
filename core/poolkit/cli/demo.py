"""`poolkit demo`: the texts that ship with poolkit, embedded, and three questions answered by similarity."""

from __future__ import annotations

from time import perf_counter

from rich.console import Console
from rich.table import Table

from poolkit.cli.options import MODEL_SETTINGS, takes_settings
from poolkit.config import ModelConfig
from poolkit.demo import QUESTIONS, load_texts
from poolkit.settings.settings import Resolved

__all__ = ["demo"]

ANSWERS_SHOWN = 3


@takes_settings(model_is_positional=True, only=MODEL_SETTINGS)
def demo(resolved: Resolved) -> None:
    """Embed a hundred short texts and answer three questions.

    Needs no network.

    The model is the packaged all-MiniLM-L6-v2; any other Hugging Face name or folder works in its place.
    """
    import numpy as np

    from poolkit import LLM  # loads torch: only a command that runs a model needs it

    settings = resolved.settings
    texts = load_texts()
    console = Console()
    named = {field: getattr(settings, field) for field in ModelConfig.model_fields}
    with LLM(**named, enable=settings.enable, disable=settings.disable, plugins=settings.plugins) as llm:
        started = perf_counter()
        outputs = llm.embed([f"{text.title}\n{text.body}" for text in texts])
        seconds = perf_counter() - started
        documents = np.stack([output.outputs.embedding for output in outputs])  # (texts, dim)
        questions = np.stack([output.outputs.embedding for output in llm.embed(list(QUESTIONS), use_tqdm=False)])
    scores = questions @ documents.T  # (questions, texts); the vectors have length 1, so these are cosines
    for question, row in zip(QUESTIONS, scores, strict=True):
        table = Table(show_header=False, box=None, expand=True)
        table.add_column("score")
        table.add_column("title", no_wrap=True)
        table.add_column("body", no_wrap=True, style="dim", ratio=1)
        for index in np.argsort(-row)[:ANSWERS_SHOWN]:
            table.add_row(f"{row[index]:.3f}", texts[index].title, texts[index].body)
        console.print(f"[bold]{question}", table, "", sep="\n")
    tokens = sum(len(output.prompt_token_ids) for output in outputs)
    console.print(
        f"Embedded {len(texts)} texts ({tokens} tokens) with {settings.model} in {seconds:.2f} s: "
        f"{len(texts) / seconds:,.0f} texts/s, {tokens / seconds:,.0f} tokens/s."
    )
