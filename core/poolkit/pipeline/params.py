"""Resolves pooling parameters once, at the pipeline's door: request over operator over task over model.

A parameter that the served task does not know, or that the model cannot honour, is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pydantic import BaseModel, ValidationError

from poolkit.contract import InputType, ModelInfo, Output, PoolingParams, PoolingTask, ResolvedParams
from poolkit.errors import RequestError, did_you_mean

__all__ = ["ParamsResolver"]

ABOUT_POOLING = ("dimensions", "use_activation", "step_tag_id", "returned_token_ids")
"""Parameters that a task need not know. The others are about tokenization, or set by IO processors."""
OF_PROCESSORS = ("parts", "late_interaction", "extra")

PROMPT_NAMES: dict[InputType, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
"""Names of the prompt for each input type: the first that the model has counts (sentence-transformers' `encode_query`
and `encode_document`)."""


@dataclass(frozen=True, slots=True)
class ParamsResolver:
    """Resolves the parameters of one task of one model."""

    task: PoolingTask
    model: ModelInfo

    def __call__(self, params: PoolingParams) -> ResolvedParams:
        """Return the parameters with every default filled in.

        Raises RequestError where the task does not know one of them or needs one that is missing, or the model cannot
        honour it.
        """
        self._check(params)
        model = self.model
        input_type = params.input_type or model.text.default_input_type
        limits = {"query": params.max_tokens_per_query, "document": params.max_tokens_per_doc}
        has_steps = "step_tag_id" in self.task.parameters and self.task.output is Output.TOKEN_LOGITS
        asked = params.returned_token_ids or model.config.pooler_config.returned_token_ids
        return ResolvedParams(
            max_tokens=self._max_tokens(params),
            truncates=params.truncate_prompt_tokens is not None,
            truncation_side=params.truncation_side,
            max_text_tokens=limits[params.input_type] if params.input_type is not None else None,
            max_tokens_per_query=params.max_tokens_per_query,
            max_tokens_per_doc=params.max_tokens_per_doc,
            add_special_tokens=params.add_special_tokens,
            prompt=self._find_prompt(params),
            input_type=input_type,
            activates=self.activates(params.use_activation),
            dimensions=params.dimensions if params.dimensions is not None else model.vector.dimensions,
            columns=tuple(map(model.columns.index, asked)) if has_steps and asked is not None else None,
            step_tag_id=_step_tag(params.step_tag_id, model.steps.tag_id) if has_steps else None,
            parts=params.parts,
            late_interaction=params.late_interaction,
            extra=self._extra(params),
        )

    def activates(self, use_activation: bool | None = None) -> bool:
        """Return whether the activation is applied: as the request says, or the operator, or the task."""
        said = (use_activation, self.model.config.pooler_config.use_activation, self.task.activates)
        return next(activates for activates in said if activates is not None)

    def _extra(self, params: PoolingParams) -> BaseModel | None:
        """Return the parameters of the task's own head: those of the request, or the defaults."""
        kind = self.task.extra
        if params.extra is not None or kind is None:
            return params.extra
        try:
            return kind()
        except ValidationError as error:
            needed = ", ".join(".".join(map(str, details["loc"])) for details in error.errors())
            raise RequestError(
                f"extra is missing: the task {self.task.name!r} takes a {kind.__name__}, which needs {needed}.",
                param="extra",
            ) from error

    def _max_tokens(self, params: PoolingParams) -> int | None:
        limit = params.truncate_prompt_tokens
        if limit is None and self.model.config.auto_truncate:
            limit = -1
        return self.model.longest(params.input_type) if limit == -1 else limit

    def _find_prompt(self, params: PoolingParams) -> str:
        """Return the prompt that is put before a text, "" for none.

        A text that is said to be a query or a document never gets the default prompt: that may be the other one's.
        """
        prompts = self.model.text.prompts
        if params.prompt_name is not None:
            if params.prompt_name not in prompts:
                known = f"Its prompts are {', '.join(prompts)}." if prompts else "It has none: leave it out."
                raise RequestError(
                    f"{self.model.name} has no prompt named {params.prompt_name!r}."
                    f"{did_you_mean(params.prompt_name, prompts)} {known}",
                    param="prompt_name",
                )
            return prompts[params.prompt_name]
        if params.input_type is not None:
            return next((prompts[name] for name in PROMPT_NAMES[params.input_type] if name in prompts), "")
        return prompts.get(self.model.text.default_prompt_name or "", "")

    def _check(self, params: PoolingParams) -> None:
        task = self.task
        for name in ABOUT_POOLING:
            if getattr(params, name) is not None and name not in task.parameters:
                known = [
                    known.name
                    for known in fields(PoolingParams)
                    if known.name in task.parameters or known.name not in (*ABOUT_POOLING, *OF_PROCESSORS)
                ]
                raise RequestError(
                    f"The task {task.name!r} does not know {name}. It knows {', '.join(known)}.", param=name
                )
        if params.extra is not None and not (task.extra is not None and isinstance(params.extra, task.extra)):
            takes = "takes none. Leave it out" if task.extra is None else f"takes a {task.extra.__name__}"
            raise RequestError(
                f"extra is a {type(params.extra).__name__}; the task {task.name!r} {takes}.", param="extra"
            )
        _check_steps(params, self.model, task)
        if params.dimensions is not None and task.output is not Output.HIDDEN:
            _check_dimensions(params.dimensions, self.model, task)


def _step_tag(request: int | None, model: int | None) -> int | None:
    return model if request is None else request


def _check_steps(params: PoolingParams, model: ModelInfo, task: PoolingTask) -> None:
    asked = [name for name in ("step_tag_id", "returned_token_ids") if getattr(params, name) is not None]
    if asked and task.output is not Output.TOKEN_LOGITS:
        raise RequestError(
            f"{model.name} scores a text as a whole: it has no steps. Leave out {asked[0]}.", param=asked[0]
        )
    for column in params.returned_token_ids or ():
        if column not in model.columns:
            raise RequestError(
                f"returned_token_ids holds {column}; {model.name} offers {', '.join(map(str, model.columns))}"
                f"{'' if model.num_labels else ' (pooler_config.returned_token_ids)'}.",
                param="returned_token_ids",
            )


def _check_dimensions(dimensions: int, model: ModelInfo, task: PoolingTask) -> None:
    size = model.embedding_size if task.output is Output.VECTOR else model.token_vector_size
    if dimensions == size:
        return
    if model.vector.matryoshka_dimensions is None:
        raise RequestError(
            f"{model.name} is not a Matryoshka model: its vectors have {size} dimensions. Leave out dimensions.",
            param="dimensions",
        )
    if model.vector.matryoshka_dimensions and dimensions not in model.vector.matryoshka_dimensions:
        allowed = ", ".join(str(number) for number in model.vector.matryoshka_dimensions)
        raise RequestError(f"dimensions is {dimensions}; {model.name} offers {allowed}.", param="dimensions")
    if not 1 <= dimensions <= size:
        raise RequestError(f"dimensions is {dimensions}; {model.name} offers 1 to {size}.", param="dimensions")
