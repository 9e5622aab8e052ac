"""The faster tokenizer: taken where it gives the same ids, left where it does not or cannot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from engines import load_tokenizer
from poolkit import LLM
from poolkit.tokenization.tokenizer import TextTokenizer
from poolkit.tokenization.truncation import TokenizeRequest, TruncatingTokenizer
from poolkit.tokenization.wordpiece import load_wordpiece


def backend_of(folder: Path) -> Backend:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return backend


@pytest.fixture(scope="module")
def backend(minilm: Path) -> Backend:
    return backend_of(minilm)


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> TextTokenizer:
    return load_tokenizer(minilm)


def test_a_wordpiece_tokenizer_runs_in_nanotoken(minilm):
    decision = load_tokenizer(minilm).decision
    assert (decision.name, decision.value) == ("tokenizer", "nanotoken")
    assert decision.source == "gives the ids of tokenizers, more quickly"


def test_the_start_up_report_names_what_tokenizes(minilm):
    with LLM(str(minilm), device="cpu", dtype="float32") as llm:
        assert load_tokenizer(minilm).decision in llm.decisions


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_another_kind_of_tokenizer_is_left_as_it_is(checkpoint, family):
    decision = load_tokenizer(checkpoint(family)).decision
    assert (decision.value, decision.source) == ("tokenizers", "it is no WordPiece")


def test_nothing_changes_where_nanotoken_is_not_installed(minilm, monkeypatch):
    monkeypatch.setitem(sys.modules, "nanotoken", None)
    tokenizer = load_tokenizer(minilm)
    assert (tokenizer.decision.value, tokenizer.decision.source) == ("tokenizers", "nanotoken is not installed")
    assert tokenizer.encode_batch(["hello"], add_special_tokens=True)[0].tolist() == [101, 7592, 102]


def test_what_nanotoken_cannot_read_is_left_to_tokenizers(minilm):
    broken = json.loads(backend_of(minilm).to_str())
    broken["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}
    assert str(load_wordpiece(Backend.from_str(json.dumps(broken)))).startswith("nanotoken cannot read it: ")


def test_one_that_gives_other_ids_is_not_used(minilm):
    backend = backend_of(minilm)

    class Disagreeing:
        """Of the same tokenizer, but it lowercases nothing: what nanotoken would get wrong."""

        model = backend.model

        def to_str(self) -> str:
            changed = json.loads(backend.to_str())
            changed["normalizer"]["lowercase"] = False
            return json.dumps(changed)

        def __getattr__(self, name: str) -> object:
            return getattr(backend, name)

    reason = load_wordpiece(Disagreeing())
    assert isinstance(reason, str)
    assert reason.startswith("nanotoken gives other ids than tokenizers for ")


@given(st.lists(st.text(max_size=80), min_size=1, max_size=20), st.booleans())
def test_any_text_has_the_ids_of_tokenizers(backend, tokenizer, texts, adds):
    expected = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=adds)]
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts, add_special_tokens=adds)] == expected


def test_a_text_that_is_cut_is_tokenized_whole_where_that_costs_less_than_a_part_of_it(minilm, monkeypatch):
    tokenizer = load_tokenizer(minilm)
    wholes = []
    monkeypatch.setattr(tokenizer, "encode_with_offsets", wholes.append)
    request = TokenizeRequest("some words " * 600, max_tokens=100)
    found = TruncatingTokenizer(tokenizer).tokenize([request])
    assert wholes == []
    assert found[request].is_whole


def test_tokens_do_not_depend_on_what_was_tokenized_before(minilm):
    tokenizer = load_tokenizer(minilm)
    texts = [f"unseen{number} wörter {number}" for number in range(500)]
    first = tokenizer.encode_batch(texts, add_special_tokens=True)
    again = [tokenizer.encode_batch([text], add_special_tokens=True)[0] for text in texts]
    assert [ids.tolist() for ids in first] == [ids.tolist() for ids in again]
