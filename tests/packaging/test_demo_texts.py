"""The collection that `poolkit demo` searches."""

import re

import pytest

from poolkit import LLM
from poolkit.demo import QUESTIONS, load_texts

ANSWERS = dict(zip(QUESTIONS, ("graceful-shutdown", "rosetta-stone", "sourdough"), strict=True))


@pytest.fixture(scope="module")
def texts():
    return {text.name: text for text in load_texts()}


@pytest.fixture(scope="module")
def vectors(texts):
    with LLM(dtype="float32") as llm:
        inputs = [*(text.body for text in texts.values()), *QUESTIONS]
        outputs = llm.embed(inputs, use_tqdm=False)
    return dict(zip([*texts, *QUESTIONS], [output.outputs.embedding for output in outputs], strict=True))


def words(text):
    """Return the words of five letters and more: the shorter ones hardly carry meaning."""
    return set(re.findall(r"[a-z]{5,}", text.lower()))


def test_there_are_more_than_a_hundred_texts_with_a_title_and_80_to_200_words(texts):
    assert len(texts) > 100
    assert [text.name for text in texts.values() if not text.title or "\n" in text.title] == []
    assert [text.name for text in texts.values() if not 80 <= len(text.body.split()) <= 200] == []


def test_no_two_texts_are_the_same(texts):
    assert len({text.title for text in texts.values()}) == len({text.body for text in texts.values()}) == len(texts)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_finds_its_answer_by_meaning(question, texts, vectors):
    best = max(texts, key=lambda name: float(vectors[name] @ vectors[question]))

    assert best == ANSWERS[question]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_shares_hardly_a_word_with_its_answer(question, texts):
    shared = words(question) & words(texts[ANSWERS[question]].body)

    assert len(shared) <= 1, shared
