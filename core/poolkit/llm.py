"""The offline front, in the field's words: one method for each standard operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import PoolingParams, Prompt
from poolkit.offline import OfflineModel
from poolkit.operations import EmbeddingsResponse, PoolingResponse
from poolkit.outputs import EmbeddingOutput, EmbeddingRequestOutput, PoolingOutput, PoolingRequestOutput, RequestOutput

__all__ = ["LLM"]

OutputT = TypeVar("OutputT")


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
        pooler_config: overrides of what the model's files say about pooling.
        hf_overrides: overrides of config.json.
        enable: installed plugins to use beside the built-in tasks, by name; "*" for all of them.
        disable: tasks or plugins not to use.
        plugins: settings of each plugin, by plugin name.
        revision: branch, tag or commit on the hub.
        batching: "auto" packs where the start-up self-check agrees with padded batches.
        max_num_batched_tokens: tokens in one forward pass.
        max_num_seqs: prompts in one forward pass.
        trust_remote_code: run Python code from the model's repository.
        engine: an entry point in group `poolkit.engines`.

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
            prompts: a text, the token ids of one, a pair of texts, or a list of these.
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
            prompts: a text, the token ids of one, a pair of texts, or a list of these.
            pooling_task: must be the served task; a check, not a choice.
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


def _given(**fields: object) -> dict[str, object]:
    """Return the fields that are not None, so that the request's own defaults hold for the others."""
    return {name: value for name, value in fields.items() if value is not None}


def _pair(
    arrays: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    prompt_token_ids: Sequence[Sequence[int]],
    *,
    wrap: Callable[[NDArray[np.float32]], OutputT],
) -> list[RequestOutput[OutputT]]:
    return [RequestOutput(wrap(array), ids) for array, ids in zip(arrays, prompt_token_ids, strict=True)]
