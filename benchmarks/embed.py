"""Measures poolkit beside sentence-transformers: same process, same model, same texts, round by round in turn.

    python -m benchmarks.embed                    each with its own default: poolkit auto, the other float32
    python -m benchmarks.embed --dtype bfloat16   both in one dtype

Both cut texts at the model's maximum and are used as their documentation says, with their default batch sizes. No
number is printed before the vectors of the two agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.docstrings import LENGTHS, docstrings
from benchmarks.machine import hardware, location, versions
from poolkit import LLM, EmbeddingRequestOutput, PoolingParams
from poolkit.config import DEFAULT_MODEL

LATENCY_TEXTS = 100
FLOAT32_MAX_DIFFERENCE = 1e-5
MIN_COSINE = 0.999  # between bfloat16, with its two to three digits, and anything else

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Measured:
    """The times of one library, as medians over the rounds."""

    name: str
    dtype: str
    batch_s: float
    single_ms: float


def main() -> None:
    """Load both, check that they agree, measure them in turn and print a table."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    reference_dtype = "float32" if options.dtype == "auto" else options.dtype
    reference = SentenceTransformer(location(options.model), model_kwargs={"dtype": getattr(torch, reference_dtype)})

    def token_counts(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in reference.tokenizer(list(texts), verbose=False)["input_ids"]]

    texts = docstrings(options.texts, token_counts=token_counts)
    with LLM(options.model, dtype=options.dtype) as llm:
        dtype = next(decision.value for decision in llm.decisions if decision.name == "dtype")
        prompt_tokens = [len(output.prompt_token_ids) for output in _outputs(llm, texts)]

        def with_poolkit(texts: Sequence[str]) -> NDArray[np.float32]:
            return np.stack([output.outputs.embedding for output in _outputs(llm, texts)])

        def with_reference(texts: Sequence[str]) -> NDArray[np.float32]:
            return reference.encode(list(texts), show_progress_bar=False).astype(np.float32)

        agreement = _check_agreement(
            with_poolkit(texts), with_reference(texts), is_exact=dtype == reference_dtype == "float32"
        )
        sides: dict[tuple[str, str], Embed] = {
            ("sentence-transformers", reference_dtype): with_reference,
            ("poolkit", dtype): with_poolkit,
        }
        measured = _measure(sides, texts, rounds=options.rounds)
    _print_report(options, measured, prompt_tokens, agreement)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure poolkit beside sentence-transformers.")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a Hugging Face name or a local folder")
    parser.add_argument("--texts", type=int, default=2000, help="how many texts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many rounds (default: %(default)s)")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto, or of both")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's choice)")
    return parser.parse_args()


def _outputs(llm: LLM, texts: Sequence[str]) -> list[EmbeddingRequestOutput]:
    return llm.embed(texts, pooling_params=PoolingParams(truncate_prompt_tokens=-1), use_tqdm=False)


def _check_agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32], *, is_exact: bool) -> str:
    """Return how far the vectors are apart, or stop where they are not the same vectors."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)  # (texts,)
    cosine = float((np.einsum("td,td->t", ours, theirs) / norms).min())
    difference = float(np.abs(ours - theirs).max())
    found = f"largest difference {difference:.1e}, smallest cosine {cosine:.6f}"
    if cosine < MIN_COSINE or (is_exact and difference > FLOAT32_MAX_DIFFERENCE):
        raise SystemExit(f"The vectors do not agree ({found}), so their speeds are not worth comparing.")
    return found


def _measure(sides: dict[tuple[str, str], Embed], texts: Sequence[str], *, rounds: int) -> list[Measured]:
    batch_s: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    single_s: dict[tuple[str, str], list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        turns = list(sides.items())
        for side, embed in turns if number % 2 else reversed(turns):
            batch_s[side].append(_seconds(embed, texts))
            single_s[side] += [_seconds(embed, [text]) for text in texts[:LATENCY_TEXTS]]
    return [
        Measured(name, dtype, median(batch_s[name, dtype]), 1000 * median(single_s[name, dtype]))
        for name, dtype in sides
    ]


def _seconds(embed: Embed, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    embed(texts)
    return time.perf_counter() - start


def _print_report(
    options: argparse.Namespace, measured: Sequence[Measured], prompt_tokens: Sequence[int], agreement: str
) -> None:
    print(f"hardware   {hardware()}")
    print(f"versions   {versions()}")
    print(f"model      {options.model}")
    print(
        f"texts      {len(prompt_tokens)} docstrings of {LENGTHS.start} to {LENGTHS.stop - 1} tokens, cut to the "
        f"model's maximum: {min(prompt_tokens)} to {max(prompt_tokens)} tokens, median {median(prompt_tokens):.0f}"
    )
    print(f"agreement  {agreement}")
    alone = min(LATENCY_TEXTS, options.texts)
    print(f"rounds     {options.rounds}, in turn; medians; alone: the first {alone} texts, one a call\n")

    slowest = measured[0]
    print(f"{'':22}{'dtype':10}{'texts/s':>10}{'tokens/s':>12}{'ratio':>8}{'ms alone':>12}{'ratio':>8}")
    for side in measured:
        texts_per_s, tokens_per_s = len(prompt_tokens) / side.batch_s, sum(prompt_tokens) / side.batch_s
        print(
            f"{side.name:22}{side.dtype:10}{texts_per_s:10,.0f}{tokens_per_s:12,.0f}"
            f"{slowest.batch_s / side.batch_s:8.2f}{side.single_ms:12.2f}{slowest.single_ms / side.single_ms:8.2f}"
        )


if __name__ == "__main__":
    main()
