"""Makes tiny causal LMs that are rerankers: the known families, under their names and with their answer tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from checkpoints import VOCABULARY

ADDED = ("yes", "no", "Yes", "<|im_start|>", "<|im_end|>")
ROOM_FOR_TOKENS = 16


@dataclass(frozen=True)
class KnownFamily:
    """A family under the name that it is recognised by, and how its reference writes a prompt."""

    name: str
    made_of: str
    template: str
    answers: tuple[str, ...]
    instruction: str
    prompt: Callable[[str, str, str], str]
    is_tied: bool


QWEN3 = KnownFamily(
    "Qwen3-Reranker-0.6B",
    "qwen3",
    "qwen3_reranker.jinja",
    ("yes", "no"),
    "Given a web search query, retrieve relevant passages that answer the query",
    lambda instruction, query, document: (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    is_tied=True,
)
MXBAI = KnownFamily(
    "mxbai-rerank-base-v2",
    "qwen2",
    "mxbai_rerank_v2.jinja",
    ("1", "0"),
    "",
    lambda instruction, query, document: (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{f'instruction: {instruction}' if instruction else ''}{instruction and chr(10)}"
        f"query: {query}\ndocument: {document}\n"
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
    ),
    is_tied=False,
)
GEMMA = KnownFamily(
    "bge-reranker-v2-gemma",
    "gemma",
    "bge_reranker_v2_gemma.jinja",
    ("Yes",),
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'.",
    lambda instruction, query, document: f"<s>A: {query}\nB: {document}\n{instruction}",
    is_tied=True,
)
KNOWN = (QWEN3, MXBAI, GEMMA)


def make_reranker(folder: Path, checkpoint: Callable[..., Path], family: KnownFamily, **overrides: object) -> Path:
    """Save a causal LM of `family` in a folder of its name in `folder`, and return that."""
    from transformers import AutoTokenizer

    settings = {"vocab_size": VOCABULARY + ROOM_FOR_TOKENS, "tie_word_embeddings": family.is_tied, **overrides}
    plain = checkpoint(family.made_of, head="ForCausalLM", sentence_transformers=False, **settings)
    made = folder / family.name
    shutil.copytree(plain, made)
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.add_tokens(list(ADDED))
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.save_pretrained(made)
    return made


def expect(folder: Path, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Return the score of each prompt as transformers' plain model gives it, a prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer.convert_tokens_to_ids(list(answers))
    scores = []
    for prompt in prompts:
        features = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**features).logits[0, -1]
        scores.append(float(logits[ids[0]] - logits[ids[1]] if len(ids) > 1 else logits[ids[0]]))
    return scores
