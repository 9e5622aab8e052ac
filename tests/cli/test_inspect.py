"""`poolkit inspect`: what would be served of a model, from its files alone, and the errors of a start-up."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints import make_checkpoint, write_json
from poolkit import LLM
from poolkit.cli import main

PROMPTS = {"query": "Find: ", "document": ""}


@pytest.fixture
def poolkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line in an empty folder, in a wide window."""
    monkeypatch.setenv("COLUMNS", "250")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poolkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def embedder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder without weights."""
    folder = make_checkpoint(tmp_path / "embedder", "bert")
    write_json(folder / "config_sentence_transformers.json", {"prompts": PROMPTS, "similarity_fn_name": "dot"})
    (folder / "model.safetensors").unlink()
    capsys.readouterr()  # what saving it printed
    return folder


def rows(table: str) -> list[list[str]]:
    return [[cell for cell in line.strip().split("  ") if cell] for line in table.splitlines()]


def test_every_value_is_shown_with_where_it_comes_from_and_no_weights_are_read(poolkit, embedder):
    code, out, err = poolkit("inspect", embedder, "--engine", "torch", "--dtype", "float32", "--device", "cpu")
    assert (code, err) == (0, "")
    values, tasks = out.split("\n\n")
    assert [[cell.strip() for cell in row] for row in rows(values)] == [
        ["name", "value", "source"],
        ["task", "embed", "the first that the model can serve"],
        ["model", str(embedder), "local folder"],
        ["architecture", "BertModel", "config.json"],
        ["max length", "256 tokens", "sentence_bert_config.json"],
        ["prompt 'query'", "'Find: '", "config_sentence_transformers.json"],
        ["pooling", "mean", "1_Pooling/config.json"],
        ["similarity", "dot", "config_sentence_transformers.json"],
        ["dimensions", "48", "config.json"],
        ["head", "none", "the model's files name none"],
        ["activation", "normalize", "task 'embed'"],
        ["engine", "torch", "engine"],
        ["device", "cpu", "device"],
        ["dtype", "float32", "dtype"],
    ]
    assert [[cell.strip() for cell in row] for row in rows(tasks)] == [
        ["task", "served"],
        ["embed", "yes"],
        ["token_embed", "yes"],
        ["classify", "no: it has no classification head"],
        ["reward", "no: it is no reward model: it has neither a classification head nor pooling_type STEP"],
        ["token_classify", "no: it has no token classification head"],
    ]


@pytest.mark.parametrize(
    ("made", "task", "head", "source"),
    [
        ({"family": "bert", "dense": 20}, "embed", "48 to 20, Tanh", "the model's own layers"),
        ({"family": "bert", "dense": 20}, "token_embed", "none", "the model's files name none"),
        (
            {"family": "bert", "head": "ForSequenceClassification", "sentence_transformers": False},
            "classify",
            "BertForSequenceClassification's own",
            "config.json",
        ),
    ],
    ids=["dense layer", "token vectors", "classifier"],
)
def test_the_head_is_shown_as_the_task_uses_it(made, task, head, source, poolkit, checkpoint):
    _, out, _ = poolkit("inspect", checkpoint(**made), "--task", task, "--json")
    assert {"name": "head", "value": head, "source": source} in json.loads(out)["decisions"]
    assert {"name": "prompts", "value": "none", "source": "the model's files name none"} in json.loads(out)["decisions"]


def test_the_report_of_a_start_up_begins_with_the_same_lines(poolkit, checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False)
    _, out, _ = poolkit("inspect", folder, "--json")
    shown = json.loads(out)
    with LLM(str(folder)) as llm:
        report = [{"name": one.name, "value": one.value, "source": one.source} for one in llm.decisions]
    assert report[: len(shown["decisions"])] == shown["decisions"]
    names = [one["name"] for one in shown["decisions"]]
    assert "label activation" in names
    assert not {"pooling", "dimensions", "similarity"} & set(names)  # of vectors, which the task does not use
    assert shown["tasks"][0] == "classify"
    assert shown["refused_tasks"]["token_classify"] == "it has no token classification head"


def test_the_errors_are_those_of_a_start_up(poolkit, embedder):
    code, out, err = poolkit("inspect", embedder, "--pooler-config.logit-mean", "2")
    assert (code, out) == (2, "")
    assert err == (
        "ConfigError: pooler_config.logit_mean is 2.0, but task 'embed' has no logits of whole texts. Leave it out.\n"
    )
    code, _, err = poolkit("inspect", embedder, "--task", "classify")
    assert code == 1
    assert err == (
        f"UnsupportedTaskError: model {str(embedder)!r} cannot serve 'classify': it has no classification head.\n"
        "  The model produces vector, token_vectors, hidden. It can serve: embed, token_embed.\n"
    )
    (embedder / "tokenizer.json").unlink()
    (embedder / "tokenizer_config.json").unlink()
    code, _, err = poolkit("inspect", embedder)
    assert code == 1
    assert err == (
        f"ModelError: The tokenizer of {embedder} has 5 tokens: {embedder} holds no vocabulary. Fetch the model "
        "again.\n"
    )
