"""Makes one prompt of a query and a document, by the Jinja template of a reranker.

Templates are the operator's, the model's or poolkit's own, never a request's. They run in a sandbox that knows no
files, no other templates, and only what is given to them: a query, a document and an instruction, also as the
`messages` that vLLM's score templates and sentence-transformers' chat templates read.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NoReturn

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from poolkit.contract import ModelInfo, ScorePrompt, TemplatedText
from poolkit.errors import ConfigError, RequestError

__all__ = ["ScoreTemplate"]

GLOBALS = ("range",)
"""Jinja's own that a template may use. The sandbox bounds it."""
IN_CHAT_TEMPLATES = {"tools": None, "documents": None}
"""The names that transformers gives to every chat template."""

MARK = f"\ue000{secrets.token_hex(8)}\ue001"
"""Stands for the document while a template is rendered. Nobody can guess it."""
DOCUMENT = f" \n{MARK}\n "
"""White space around it shows a template that trims."""
PROBE = "a query, or an instruction"


class ScoreTemplate:
    """A reranker's template, compiled. Used from many threads at a time.

    Raises ConfigError where it is no template, asks for what it is not given, or does not hold the query, and the
    document exactly once and as it is.

    >>> template = ScoreTemplate(ScorePrompt(template="{{ query }}? {{ document }}!", source="the example"))
    >>> template.render("Why", ["Because", "So"])[1]
    TemplatedText(prefix='Why? ', text='So', suffix='!')
    """

    def __init__(self, prompt: ScorePrompt) -> None:
        self._prompt = prompt
        # A model's own template was written for an environment that lets undefined names pass.
        undefined = Undefined if prompt.is_chat_template else StrictUndefined
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, undefined=undefined, extensions=[loopcontrols]
        )
        environment.globals = {
            **{name: environment.globals[name] for name in GLOBALS},
            "raise_exception": _refuse,
        }
        try:
            self._template = environment.from_string(prompt.template)
        except TemplateSyntaxError as exc:
            raise ConfigError(f"The {prompt.source} is not valid Jinja: line {exc.lineno}: {exc.message}") from exc
        self._takes_instruction = self._check()

    @classmethod
    def of(cls, model: ModelInfo) -> ScoreTemplate | None:
        """Return the template of a model, or None where it takes query and document as a pair of texts."""
        return cls(model.reranker.prompt) if model.reranker.prompt is not None else None

    def render(self, query: str, documents: Sequence[str], *, instruction: str | None = None) -> list[TemplatedText]:
        """Return one prompt for each document. The template is rendered once.

        Raises RequestError where it refuses the query, or has no place for the instruction that is given.
        """
        if instruction is not None and not self._takes_instruction:
            raise RequestError(
                f"The {self._prompt.source} has no place for an instruction. Leave instruction out.",
                param="instruction",
            )
        try:
            before, after = self._frame(query, instruction)
        except Exception as exc:
            raise RequestError(f"The {self._prompt.source} cannot take this query: {_say(exc)}") from exc
        return [TemplatedText(before, document, after) for document in documents]

    def _check(self) -> bool:
        """Return whether the template has a place for an instruction."""
        source = self._prompt.source
        try:
            frame = self._frame("", None)
            with_query = self._frame(PROBE, None)
            longer = self._render(PROBE, f"{DOCUMENT} {PROBE} {DOCUMENT}", None)
            instructed = self._frame("", PROBE)
        except ConfigError:
            raise
        except Exception as exc:  # a template can raise whatever Python can
            raise ConfigError(f"The {source} cannot be rendered: {_say(exc)}") from exc
        if frame == with_query:
            raise ConfigError(f"The {source} does not hold the query. Write {{{{ query }}}} where it belongs.")
        if longer != f"{DOCUMENT} {PROBE} {DOCUMENT}".join(with_query):
            raise ConfigError(
                f"The {source} writes another text around another document. Only the query and the instruction may "
                "decide what stands around a document."
            )
        return frame != instructed

    def _frame(self, query: str, instruction: str | None) -> tuple[str, str]:
        """Return what stands before and after a document."""
        rendered = self._render(query, DOCUMENT, instruction)
        count = rendered.count(MARK)
        if count != 1:
            raise ConfigError(
                f"The {self._prompt.source} holds the document {count} times. Write {{{{ document }}}} exactly once: "
                "where a prompt is too long, the document is what is cut."
            )
        before, found, after = rendered.partition(DOCUMENT)
        if not found:
            raise ConfigError(
                f"The {self._prompt.source} trims or changes the document. Write {{{{ document }}}} without a filter."
            )
        return before, after

    def _render(self, query: str, document: str, instruction: str | None) -> str:
        prompt = self._prompt
        if instruction is None:
            instruction = prompt.instruction
        system = [("system", instruction)] if instruction else []
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if prompt.has_parts else text}
            for role, text in (*system, ("query", query), ("document", document))
        ]
        names: dict[str, object] = {**prompt.variables, "messages": messages}
        if prompt.is_chat_template:
            names |= {**IN_CHAT_TEMPLATES, "add_generation_prompt": prompt.adds_generation_prompt}
        else:
            names |= {"query": query, "document": document, "instruction": instruction}
        return self._template.render(names)


def _refuse(message: str) -> NoReturn:
    """Let a template say that it cannot be rendered: transformers' `raise_exception`."""
    raise TemplateError(message)


def _say(exc: Exception) -> str:
    return str(exc) if isinstance(exc, TemplateError) else f"{type(exc).__name__}: {exc}"
