"""Measures reranking of 100 passages: poolkit beside sentence-transformers, same process, round by round in turn.

    python -m benchmarks.rerank                    each with its own default: poolkit auto, the other float32
    python -m benchmarks.rerank --dtype bfloat16   both in one dtype

Cross-encoder: a checkpoint of MiniLM's size with random weights, beside sentence-transformers' CrossEncoder. Late
interaction: MiniLM's token vectors, beside sentence-transformers' token embeddings and a plain padded MaxSim. No number
is printed before the scores agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer

from benchmarks.docstrings import LENGTHS, docstrings
from benchmarks.machine import hardware, location, versions
from poolkit import LLM, PoolerConfig, PoolingParams
from poolkit.config import DEFAULT_MODEL

PASSAGES = 100
QUERY_CHARACTERS = 80
FLOAT32_MAX_DIFFERENCE = 1e-4
WHOLE = PoolingParams(truncate_prompt_tokens=-1)

Rerank: TypeAlias = Callable[[str, Sequence[str]], NDArray[np.float32]]
"""Returns the score of each passage with the query."""
Sides: TypeAlias = Mapping[tuple[str, str], Rerank]
"""By the names of library and dtype, the reference first."""


def main() -> None:
    """Measure cross-encoders, then late interaction, and print a table of each."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = location(DEFAULT_MODEL)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def token_counts(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]

    texts = docstrings(options.queries * (PASSAGES + 1), token_counts=token_counts)
    queries = [text[:QUERY_CHARACTERS] for text in texts[: options.queries]]
    passages = [texts[start : start + PASSAGES] for start in range(options.queries, len(texts), PASSAGES)]
    tasks = list(zip(queries, passages, strict=True))
    print(f"hardware   {hardware()}")
    print(f"versions   {versions()}")
    print(
        f"texts      {options.queries} queries, each with {PASSAGES} docstrings of its own of {LENGTHS.start} to "
        f"{LENGTHS.stop - 1} tokens, cut to the model's maximum"
    )
    print(f"rounds     {options.rounds}, in turn; medians")
    transformers.logging.disable_progress_bar()
    with TemporaryDirectory() as made:
        _compare("cross-encoder, MiniLM's size, random weights", _cross_encoders(folder, made, options), tasks, options)
    _compare("late interaction, MiniLM's token vectors", _late_interaction(folder, options), tasks, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure reranking beside sentence-transformers.")
    parser.add_argument(
        "--queries", type=int, default=4, help="how many, with 100 passages each (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many rounds (default: %(default)s)")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto, or of both")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's choice)")
    return parser.parse_args()


def _cross_encoders(folder: str, made: str, options: argparse.Namespace) -> Sides:
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=1)
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(made)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    dtype = _reference_dtype(options)
    reference = CrossEncoder(made, model_kwargs={"dtype": getattr(torch, dtype)})
    llm = LLM(made, task="classify", dtype=options.dtype)

    def with_reference(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        pairs = [(query, passage) for passage in passages]
        return reference.predict(pairs, show_progress_bar=False, convert_to_tensor=True).float().cpu().numpy()

    return {("CrossEncoder", dtype): with_reference, ("poolkit", _dtype(llm)): _with_poolkit(llm)}


def _late_interaction(folder: str, options: argparse.Namespace) -> Sides:
    dtype = _reference_dtype(options)
    reference = SentenceTransformer(folder, model_kwargs={"dtype": getattr(torch, dtype)})
    plain = PoolerConfig(enable_flash_late_interaction=False)
    next_to_model = LLM(folder, task="token_embed", dtype=options.dtype)
    afterwards = LLM(folder, task="token_embed", dtype=options.dtype, pooler_config=plain)

    def encode(texts: Sequence[str]) -> list[torch.Tensor]:
        found = reference.encode(list(texts), output_value="token_embeddings", show_progress_bar=False)
        return [torch.nn.functional.normalize(rows.float(), dim=-1) for rows in found]

    def with_reference(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        [vectors] = encode([query])  # (query tokens, dim)
        return _padded_maxsim(vectors, encode(passages)).cpu().numpy()

    return {
        ("padded MaxSim", dtype): with_reference,
        ("poolkit, plain", _dtype(afterwards)): _with_poolkit(afterwards),
        ("poolkit", _dtype(next_to_model)): _with_poolkit(next_to_model),
    }


def _padded_maxsim(query: torch.Tensor, passages: Sequence[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([len(rows) for rows in passages], device=query.device)
    padded = torch.nn.utils.rnn.pad_sequence(list(passages), batch_first=True)  # (passages, longest, dim)
    similarities = torch.einsum("qd,ptd->pqt", query, padded)  # (passages, query tokens, longest)
    is_padding = torch.arange(padded.shape[1], device=query.device) >= lengths[:, None]  # (passages, longest)
    return similarities.masked_fill(is_padding[:, None], -torch.inf).amax(dim=2).sum(dim=1)


def _with_poolkit(llm: LLM) -> Rerank:
    def rerank(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        outputs = llm.score(query, passages, pooling_params=WHOLE, use_tqdm=False)
        return np.array([output.outputs.score for output in outputs], np.float32)

    return rerank


def _reference_dtype(options: argparse.Namespace) -> str:
    return "float32" if options.dtype == "auto" else options.dtype


def _dtype(llm: LLM) -> str:
    return next(decision.value for decision in llm.decisions if decision.name == "dtype")


def _compare(title: str, sides: Sides, tasks: Sequence[tuple[str, Sequence[str]]], options: argparse.Namespace) -> None:
    """Check that all sides give the same scores, then measure them in turn and print a table."""
    scores = {side: np.concatenate([rerank(*task) for task in tasks]) for side, rerank in sides.items()}
    (reference, reference_dtype), *_ = sides
    expected = scores[reference, reference_dtype]
    differences = {side: float(np.abs(found - expected).max()) for side, found in scores.items()}
    for (name, dtype), difference in differences.items():
        if dtype == reference_dtype == "float32" and difference > FLOAT32_MAX_DIFFERENCE:
            raise SystemExit(f"The scores of {name} differ by {difference:.1e}: their speeds are not worth comparing.")
    seconds: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    for number in range(options.rounds):
        turns = list(sides.items())
        for side, rerank in turns if number % 2 else reversed(turns):
            start = time.perf_counter()
            for task in tasks:
                rerank(*task)
            seconds[side].append(time.perf_counter() - start)

    print(f"\n{title}; the scores of {reference} spread by {expected.std():.1e} (standard deviation)")
    print(f"{'':18}{'dtype':10}{'pairs/s':>10}{'ms a query':>12}{'ratio':>8}{'max difference':>16}")
    slowest = median(seconds[reference, reference_dtype])
    for (name, dtype), taken in seconds.items():
        took = median(taken)
        print(
            f"{name:18}{dtype:10}{len(expected) / took:10,.0f}{1000 * took / len(tasks):12,.0f}"
            f"{slowest / took:8.2f}{differences[name, dtype]:16.1e}"
        )


if __name__ == "__main__":
    main()
