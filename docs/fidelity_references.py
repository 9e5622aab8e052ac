"""The references' answers to the texts of docs/fidelity.md, each library called as its own documentation has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from PIL import Image
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer

import rerankers
from checkpoints import real_texts
from image_models import pictures
from poolkit import TextPair

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

__all__ = [
    "LENGTH",
    "STEP_TAG",
    "Arrays",
    "expect_cross_encoder",
    "expect_embeddings",
    "expect_image_vectors",
    "expect_logits",
    "expect_maxsim",
    "expect_multi_vector_scores",
    "expect_multi_vectors",
    "expect_page_scores",
    "expect_page_vectors",
    "expect_query_vectors",
    "expect_similarities",
    "expect_steps",
    "expect_text_vectors",
    "expect_token_vectors",
    "expect_yes_no",
    "pairs",
    "prompts_with_steps",
    "short_texts",
    "texts",
]

Arrays = Sequence[np.ndarray]

LENGTH = 200
"""The longest prompt in tokens: longer texts are cut, by poolkit as by the reference."""
STEP_TAG = 17
"""Stands for the token that ends a step of reasoning."""


def texts() -> list[str]:
    """Return real texts, of one character to some thousands."""
    return [text for text in real_texts(40) if text]


def pairs() -> list[TextPair]:
    """Return the texts two by two."""
    return [TextPair(first, second) for first, second in zip(texts()[::2], texts()[1::2], strict=False)]


def prompts_with_steps() -> list[list[int]]:
    """Return token ids, with some that end a step among them."""
    dice = np.random.default_rng(0)
    prompts = dice.integers(20, 700, (12, 90)).tolist()
    return [[*prompt[: 5 * place + 30], STEP_TAG, *prompt[60:], STEP_TAG] for place, prompt in enumerate(prompts)]


def expect_embeddings(folder: Path) -> Arrays:
    """Return sentence vectors."""
    return SentenceTransformer(str(folder), device="cpu").encode(texts())


def expect_token_vectors(folder: Path) -> Arrays:
    """Return normalised token vectors."""
    rows = SentenceTransformer(str(folder), device="cpu").encode(texts(), output_value="token_embeddings")
    return [torch.nn.functional.normalize(one, dim=-1).numpy() for one in rows]


def expect_similarities(folder: Path) -> Arrays:
    """Return the similarity of the first text to all others."""
    model = SentenceTransformer(str(folder), device="cpu")
    query, *documents = model.encode(texts())
    return [model.similarity(query, np.stack(documents))[0].numpy()]


def expect_maxsim(folder: Path) -> Arrays:
    """Return the MaxSim of the first text with all others, a pair at a time."""
    query, *documents = expect_token_vectors(folder)
    return [np.array([(query @ document.T).max(axis=1).sum() for document in documents])]


def expect_multi_vectors(folder: Path) -> Arrays:
    """Return the token vectors of the documents of a multi-vector model."""
    return MultiVectorEncoder(str(folder), device="cpu").encode_document(texts(), convert_to_numpy=True)


def expect_multi_vector_scores(folder: Path) -> Arrays:
    """Return the scores of a short text with all others."""
    model = MultiVectorEncoder(str(folder), device="cpu")
    query, documents = model.encode_query(short_texts()[:1]), model.encode_document(short_texts()[1:])
    return [model.similarity(query, documents)[0].numpy()]


def expect_cross_encoder(folder: Path) -> Arrays:
    """Return the scores of the first text with all others."""
    query, *documents = texts()
    model = CrossEncoder(str(folder), device="cpu", max_length=LENGTH)
    return [model.predict([(query, document) for document in documents])]


def expect_yes_no(folder: Path, family: rerankers.KnownFamily) -> Arrays:
    """Return the difference of the plain language model's two logits, for the first text with short others."""
    query, *documents = short_texts()
    prompts = [family.prompt(family.instruction, query, document) for document in documents]
    return [np.array(rerankers.expect(folder, prompts, family.answers))]


def expect_logits(folder: Path, *, head: str, prompts: Sequence[str | TextPair]) -> Arrays:
    """Return the plain model's logits for each prompt alone."""
    model = getattr(transformers, f"AutoModel{head}").from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    taken = inspect.signature(model.forward).parameters
    answers = []
    for prompt in prompts:
        written = (prompt.first, prompt.second) if isinstance(prompt, TextPair) else (prompt,)
        features = tokenizer(*written, truncation=True, max_length=LENGTH, return_tensors="pt")
        with torch.inference_mode():
            output = model(**{name: value for name, value in features.items() if name in taken})
        answers.append(output.logits[0].numpy())
    return answers


def expect_steps(folder: Path) -> Arrays:
    """Return the plain token classifier's logits at the tokens that end a step."""
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    answers = []
    for prompt in prompts_with_steps():
        with torch.inference_mode():
            logits = model(torch.tensor([prompt])).logits[0].numpy()
        answers.append(logits[np.array(prompt) == STEP_TAG])
    return answers


def short_texts() -> list[str]:
    """Return the texts that fit into a reranker's template."""
    return [text for text in texts() if len(text) < 300]


@torch.inference_mode()
def expect_image_vectors(folder: Path) -> Arrays:
    """Return the vectors of pictures by a model with two towers, not normalised."""
    model, processor = _with_processor(folder, transformers.AutoModel)
    inputs = [processor(images=[image], return_tensors="pt") for image in _opened()]
    return [model.get_image_features(**one).pooler_output[0].numpy() for one in inputs]


@torch.inference_mode()
def expect_text_vectors(folder: Path) -> Arrays:
    """Return the vectors of texts by such a model, not normalised, each text filled up where the model's are."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = {} if model.config.model_type == "clip" else {"padding": "max_length"}
    inputs = [tokenizer([text], truncation=True, return_tensors="pt", **padding)["input_ids"] for text in texts()]
    return [model.get_text_features(input_ids=one).pooler_output[0].numpy() for one in inputs]


def expect_page_vectors(folder: Path) -> Arrays:
    """Return the vectors of pictures' tokens by a model that searches pages."""
    return _retrieve(folder, lambda processor: [processor.process_images([one]) for one in _opened()])


def expect_query_vectors(folder: Path) -> Arrays:
    """Return the vectors of queries' tokens by such a model."""
    return _retrieve(
        folder, lambda processor: [processor.process_queries([text], return_tensors="pt") for text in short_texts()]
    )


def expect_page_scores(folder: Path) -> Arrays:
    """Return the MaxSim of the first query with each picture."""
    query, pages = expect_query_vectors(folder)[0], expect_page_vectors(folder)
    return [np.array([(query @ page.T).max(axis=1).sum() for page in pages])]


@torch.inference_mode()
def _retrieve(folder: Path, process: Callable[[ProcessorMixin], Sequence[BatchFeature]]) -> Arrays:
    [architecture] = transformers.AutoConfig.from_pretrained(folder).architectures
    model, processor = _with_processor(folder, getattr(transformers, architecture))
    return [model(**one.convert_to_tensors("pt")).embeddings[0].numpy() for one in process(processor)]


def _with_processor(folder: Path, kind: type) -> tuple[PreTrainedModel, ProcessorMixin]:
    is_retriever = kind is not transformers.AutoModel
    load = transformers.AutoProcessor if is_retriever else transformers.AutoImageProcessor
    return kind.from_pretrained(folder).eval(), load.from_pretrained(folder)


def _opened() -> list[Image.Image]:
    return [Image.open(BytesIO(one.data)).convert("RGB") for one in pictures()]
