"""The offline front, in the field's words: one method for each standard operation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import ModalityPrompt, Output, PoolingParams, Prompt, TokenIds
from poolkit.errors import RequestError
from poolkit.offline.model import OfflineModel
from poolkit.offline.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    RequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
    TokenClassificationOutput,
    TokenClassificationRequestOutput,
)
from poolkit.operations import (
    AggregationStrategy,
    ClassifyResponse,
    EmbeddingsResponse,
    PoolingResponse,
    RerankResponse,
    RerankResult,
    ScoreResponse,
    TokenClassifyResponse,
)

__all__ = ["LLM"]

OutputT = TypeVar("OutputT")

NO_SCORES = (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)


class LLM(OfflineModel):
    """A pooling model, loaded once for one task.

    >>> from poolkit import LLM
    >>> llm = LLM()  # the packaged all-MiniLM-L6-v2; any Hugging Face name or local folder works in its place
    >>> [output] = llm.embed("A cat sat on the mat.", use_tqdm=False)
    >>> output.outputs.embedding.shape
    (384,)
    >>> llm.close()

    Args:
        model: a Hugging Face name or a local folder.
        task: the one task to serve; the model's own preference by default. `PoolerConfig(task=...)` says the same.
        dtype: "auto" is bfloat16 where the hardware runs it fast, else float32, which gives the reference's numbers.
        device: "auto" is cuda where there is one, else cpu.
        max_model_len: longest prompt in tokens; what the model's files allow by default.
        auto_truncate: cut a longer prompt where `truncate_prompt_tokens` does not say how long it may be.
        pooler_config: overrides of what the model's files say about pooling.
        hf_overrides: overrides of config.json.
        score_template: a file with the Jinja template that makes one prompt of a query and a document; the model's own
            by default, or the one that ships for its family.
        enable: installed plugins to use beside the built-in tasks, by name; "*" for all of them.
        disable: tasks or plugins not to use.
        plugins: settings of each plugin, by plugin name.
        revision: branch, tag or commit on the hub.
        batching: "auto" packs where the start-up self-check agrees with padded batches.
        max_num_batched_tokens: tokens in one forward pass.
        max_num_seqs: prompts in one forward pass.
        num_streams: threads that run forward passes at the same time; as many as the engine gains from by default.
        threads_per_stream: threads that one forward pass uses on the CPU; by default the engine's choice for one
            stream, and a share of the cores for each of several.
        trust_remote_code: run Python code from the model's repository.
        engine: an entry point in group `poolkit.engines`; "auto" is the first that suits the model, else "torch".

    Raises:
        ConfigError: an argument cannot be used.
        ModelError: the model's files are missing or ask for something poolkit does not have.
        PluginError, TaskError, StartupError: an enabled plugin or the chosen task cannot be used.
    """

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[EmbeddingRequestOutput]:
        """Return the vector of each prompt, in order.

        Args:
            prompts: a text, the token ids of one, a pair of texts, a prompt of another modality, or a list
                of these.
            pooling_params: how they are tokenized and pooled: one for all of them, or one per prompt. By default a
                prompt that is too long is an error; `truncate_prompt_tokens` says otherwise.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong (it is a ValueError too), or the served task has no embeddings.
            BatchError: some of several prompts failed; `outputs` holds the results of the others.
        """
        fields = _given(
            input=prompts,
            pooling_params=pooling_params,
        )
        response = self._ask("embeddings", fields, EmbeddingsResponse, wrap=EmbeddingOutput, use_tqdm=use_tqdm)
        return _pair(response.embeddings, response.prompt_token_ids, wrap=EmbeddingOutput)

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        use_tqdm: bool = True,
    ) -> list[ClassificationRequestOutput]:
        """Return the labels of each prompt, in order.

        Args:
            prompts: a text, the token ids of one, a pair of texts, a prompt of another modality, or a list
                of these.
            pooling_params: how they are tokenized and pooled: one for all of them, or one per prompt.
            top_k: list at most so many labels.
            threshold: list only labels with a higher score; 0.5 by default where a text can have several labels.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong (it is a ValueError too), or the served task does not classify.
            BatchError: some of several prompts failed; `outputs` holds the scores of the others as they were pooled.
        """
        fields = _given(input=prompts, pooling_params=pooling_params, top_k=top_k, threshold=threshold)
        response = self._ask("classify", fields, ClassifyResponse, wrap=PoolingOutput, use_tqdm=use_tqdm)
        return [
            RequestOutput(ClassificationOutput(one.label, one.labels, one.probs), ids)
            for one, ids in zip(response.data, response.prompt_token_ids, strict=True)
        ]

    def token_classify(
        self,
        prompts: str | Sequence[str],
        *,
        aggregation_strategy: AggregationStrategy | Literal["none", "simple", "first", "average", "max"] = "none",
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[TokenClassificationRequestOutput]:
        """Return the entities in each text, in order: those that transformers' pipeline finds.

        The scores of all labels for each token are what `encode` returns.

        Args:
            prompts: a text or a list of texts.
            aggregation_strategy: how tokens become entities.
            pooling_params: how the texts are tokenized and pooled: one for all of them, or one per text.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong (it is a ValueError too), or the served task finds no entities.
            BatchError: some of several prompts failed; `outputs` holds the logits of the others as they were pooled.
        """
        fields = _given(input=prompts, pooling_params=pooling_params, aggregation_strategy=aggregation_strategy)
        response = self._ask("token_classify", fields, TokenClassifyResponse, wrap=PoolingOutput, use_tqdm=use_tqdm)
        return [
            RequestOutput(TokenClassificationOutput(one.entities), ids)
            for one, ids in zip(response.data, response.prompt_token_ids, strict=True)
        ]

    def score(
        self,
        data_1: str | ModalityPrompt | Sequence[str | ModalityPrompt],
        data_2: str | ModalityPrompt | Sequence[str | ModalityPrompt],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        max_tokens_per_query: int | None = None,
        max_tokens_per_doc: int | None = None,
        instruction: str | None = None,
        use_tqdm: bool = True,
    ) -> list[ScoringRequestOutput]:
        """Return how well each document answers its query, in the order of the documents.

        Args:
            data_1: the queries, texts or prompts of another modality that the model reads: one for all documents, or
                one for each.
            data_2: the documents, likewise.
            pooling_params: how they are tokenized and pooled: one for all pairs, or one per pair. A query that stands
                in several pairs runs once for each way in which it is to be read.
            max_tokens_per_query: keep at most so many tokens of each query.
            max_tokens_per_doc: keep at most so many tokens of each document.
            instruction: what makes a document relevant, for a model whose template has a place for it.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong (it is a ValueError too), or the served task does not score.
            BatchError: some of several pairs failed; `outputs` holds what was pooled for the others.
        """
        fields = _given(
            queries=data_1,
            documents=data_2,
            pooling_params=pooling_params,
            max_tokens_per_query=max_tokens_per_query,
            max_tokens_per_doc=max_tokens_per_doc,
            instruction=instruction,
        )
        response = self._ask("score", fields, ScoreResponse, wrap=PoolingOutput, use_tqdm=use_tqdm)
        scores: list[float] = response.scores.tolist()
        return [
            RequestOutput(ScoringOutput(score), ids)
            for score, ids in zip(scores, response.prompt_token_ids, strict=True)
        ]

    def rerank(
        self,
        query: str | ModalityPrompt,
        documents: Sequence[str | ModalityPrompt],
        *,
        top_n: int | None = None,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        max_tokens_per_query: int | None = None,
        max_tokens_per_doc: int | None = None,
        instruction: str | None = None,
        use_tqdm: bool = True,
    ) -> list[RerankResult]:
        """Return the documents with their scores, the most relevant first and equals in the order given.

        Args:
            query: what is searched with: a text, or a prompt of another modality that the model reads.
            documents: what is sorted, likewise.
            top_n: return only so many; all by default.
            pooling_params: how they are tokenized and pooled: one for all documents, or one per document.
            max_tokens_per_query: keep at most so many tokens of the query.
            max_tokens_per_doc: keep at most so many tokens of each document.
            instruction: what makes a document relevant, for a model whose template has a place for it.
            use_tqdm: show a progress bar.

        Raises RequestError where the input is wrong (it is a ValueError too), or the served task does not rerank.
        """
        fields = _given(
            query=query,
            documents=documents,
            top_n=top_n,
            pooling_params=pooling_params,
            max_tokens_per_query=max_tokens_per_query,
            max_tokens_per_doc=max_tokens_per_doc,
            instruction=instruction,
        )
        return self._ask("rerank", fields, RerankResponse, wrap=PoolingOutput, use_tqdm=use_tqdm).results

    def reward(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[PoolingRequestOutput]:
        """Return the scores of a reward model, as `encode` does. Deprecated: call that.

        They are raw or activated, as the served task has them.

        Raises:
            RequestError: the input is wrong, or the served task gives no scores (it is a ValueError too).
            BatchError: some of several prompts failed; `outputs` holds the results of the others.
        """
        _warn_of_reward()
        task = self._served.task
        if task.output in NO_SCORES:
            raise RequestError(
                f"LLM.reward returns a model's scores, and the served task {task.name!r} gives none. Load the model "
                "for a task that does."
            )
        return self.encode(prompts, pooling_params=pooling_params, use_tqdm=use_tqdm)

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_task: str | None = None,
        pooling_params: PoolingParams | Sequence[PoolingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[PoolingRequestOutput]:
        """Return what the served task pools for each prompt, in order.

        Args:
            prompts: a text, the token ids of one, a pair of texts, a prompt of another modality, or a list
                of these.
            pooling_task: must be the served task; a check, not a choice. A task may take other names for itself, as
                that of reward models does.
            pooling_params: how they are tokenized and pooled: one for all of them, or one per prompt. By default a
                prompt that is too long is an error; `truncate_prompt_tokens` says otherwise.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong, or `pooling_task` is not the served task (it is a ValueError too).
            BatchError: some of several prompts failed; `outputs` holds the results of the others.
        """
        fields = _given(
            input=prompts,
            task=pooling_task,
            pooling_params=pooling_params,
        )
        response = self._ask("pooling", fields, PoolingResponse, wrap=PoolingOutput, use_tqdm=use_tqdm)
        return _pair(response.data, response.prompt_token_ids, wrap=PoolingOutput)


@cache
def _warn_of_reward() -> None:
    warnings.warn(
        "LLM.reward is deprecated and does what LLM.encode does. Call LLM.encode(prompts).",
        FutureWarning,
        stacklevel=3,
    )


def _given(**fields: object) -> dict[str, object]:
    """Return the fields that are not None, so that the request's own defaults hold for the others."""
    return {name: value for name, value in fields.items() if value is not None}


def _pair(
    arrays: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    prompt_token_ids: Sequence[TokenIds],
    *,
    wrap: Callable[[NDArray[np.float32]], OutputT],
) -> list[RequestOutput[OutputT]]:
    return [RequestOutput(wrap(array), ids) for array, ids in zip(arrays, prompt_token_ids, strict=True)]
