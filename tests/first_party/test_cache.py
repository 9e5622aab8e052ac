"""Results from disk: what runs no more, what still does, and a cache that does not work."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from distributions import Site
from poolkit import LLM, EmbeddingsRequest, PoolingRequest, ScoreRequest, create_app
from poolkit.errors import BatchError, EngineError, PluginLoadError, RequestError
from poolkit.testing import FakeBackbone, fake_model
from serving import ask, ids_in

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def cached(folder):
    """Return a function that serves the fake model with a cache in `folder`."""

    def serve(task="embed", backbone=None, **settings: object):
        return fake_model(task, plugin="cache", settings={"folder": str(folder), **settings}, backbone=backbone)

    return serve


def embed(served, *prompts: object, **fields: object):
    return served.run("embeddings", EmbeddingsRequest(input=list(prompts), **fields))


def ran(served) -> int:
    """Return how many prompts the model has run."""
    return served.stats().prompts_run


def test_what_has_run_once_runs_no_more_and_gives_the_same(cached):
    with cached() as served:
        first = embed(served, "a", "b c")
        second = embed(served, "a", "b c")
        assert ran(served) == 2
    assert np.array_equal(first.embeddings, second.embeddings)
    assert (ids_in(first), first.usage) == (ids_in(second), second.usage)


def test_the_others_of_a_request_run_and_all_keep_their_order(cached):
    with fake_model("embed") as plain:
        expected = embed(plain, "a", "b", "c", "d")
    with cached() as served:
        embed(served, "d", "b")
        got = embed(served, "a", "b", "c", "d")
        assert ran(served) == 4
    assert np.array_equal(got.embeddings, expected.embeddings)
    assert ids_in(got) == ids_in(expected)


def test_the_same_prompt_runs_once_in_a_request(cached):
    with cached() as served:
        response = embed(served, "a", "b", "a", "a")
        assert ran(served) == 2
    assert np.array_equal(response.embeddings[[0, 0, 0]], response.embeddings[[0, 2, 3]])


def test_a_text_and_its_token_ids_are_one_prompt_and_so_are_two_ways_to_truncate_it(cached):
    with cached() as served:
        [ids] = embed(served, "a b c").prompt_token_ids
        embed(served, ids)
        embed(served, "a b c", truncate_prompt_tokens=20)
        assert ran(served) == 1


@pytest.mark.parametrize("fields", [{"dimensions": 3}, {"use_activation": False}, {"truncate_prompt_tokens": 3}])
def test_other_parameters_are_another_result(cached, fields):
    with fake_model("embed") as plain:
        expected = embed(plain, "a b c", **fields)
    with cached() as served:
        embed(served, "a b c")
        got = embed(served, "a b c", **fields)
        assert ran(served) == 2
    assert np.array_equal(got.embeddings, expected.embeddings)


def test_the_operations_of_a_task_share_their_results(cached):
    with cached() as served:
        [row] = embed(served, "a").embeddings
        [data] = served.run("pooling", PoolingRequest(input="a")).data
        assert ran(served) == 1
    assert np.array_equal(row, data)


def test_results_outlive_the_process_that_made_them(cached):
    with cached() as served:
        before = embed(served, "a", "b")
    with cached() as served:
        after = embed(served, "a", "b")
        assert ran(served) == 0
    assert np.array_equal(before.embeddings, after.embeddings)


def test_another_version_of_the_plugin_that_provides_the_task_makes_results_anew(cached, tmp_path, monkeypatch):
    with cached() as served:
        embed(served, "a")
    (tmp_path / "site").mkdir()
    Site(tmp_path / "site").install_task("poolkit-other", "2.0.0", "embed")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with cached() as served:
        embed(served, "a")
        assert ran(served) == 1


@pytest.mark.parametrize(
    ("config", "runs"),
    [({"max_num_seqs": 4}, 0), ({"revision": "v2"}, 1), ({"dtype": "bfloat16"}, 1)],
)
def test_settings_that_decide_the_result_make_it_anew(serve, folder, config, runs):
    settings = {"cache": {"folder": str(folder)}}
    with serve("cache", settings=settings) as served:
        embed(served, "a")
    with serve("cache", settings=settings, **config) as served:
        embed(served, "a")
        assert ran(served) == runs


def test_changed_weights_make_results_anew(serve, checkpoint, folder, tmp_path):
    model = Path(shutil.copytree(checkpoint("bert", max_seq_length=32), tmp_path / "model"))
    counts = []
    for change_s in (0, 0, 1):
        weights = model / "model.safetensors"
        os.utime(weights, ns=(0, weights.stat().st_mtime_ns + change_s * 10**9))
        with serve("cache", model=model, settings={"cache": {"folder": str(folder)}}) as served:
            embed(served, "a")
            counts.append(ran(served))
    assert counts == [1, 0, 1]


def test_outputs_per_token_are_kept_too(install_grade, cached):
    install_grade("TOKEN_VECTORS")
    with cached("grade") as served:
        request = PoolingRequest(input=["a b", "c"])
        [first, second] = (served.run("pooling", request).data for _ in range(2))
        assert ran(served) == 2
    assert [array.shape for array in first] == [array.shape for array in second] == [(4, 8), (3, 8)]
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_what_belongs_to_one_request_of_late_interaction_is_not_kept(cached):
    request = ScoreRequest(queries="a", documents=["b", "c d"])
    with cached("token_embed") as served:
        first, second = served.run("score", request), served.run("score", request)
        assert ran(served) == 6
        served.run("pooling", PoolingRequest(input="b"))
        assert ran(served) == 7
    assert np.array_equal(first.scores, second.scores)


def test_what_a_head_gives_besides_is_kept_too(install_grade, cached, parts_backbone):
    install_grade("VECTOR")
    with cached("grade", backbone=parts_backbone) as served:
        first, second = (served.run("lengths", PoolingRequest(input=["a", "b c"])).data for _ in range(2))
        assert ran(served) == 2
    assert [array.tolist() for array in first] == [array.tolist() for array in second] == [[3], [4]]


def test_pairs_of_texts_are_kept_apart_from_other_pairs_of_the_same_tokens(install_grade, cached):
    install_grade("LOGITS")
    pairs = PoolingRequest(input=["a|b c", "a b|c", "a|b c"])
    with fake_model("grade") as plain:
        expected = plain.run("pairs", pairs).data
    with cached("grade") as served:
        answers = [served.run("pairs", pairs).data for _ in range(2)]
        assert ran(served) == 2
    assert all(np.array_equal(answer, expected) for answer in answers)


def size_of(folder: Path) -> int:
    """Return the size of the database: SQLite's own scratch files are there or not as another connection closes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.suffix not in (".db-wal", ".db-shm"))


def test_the_folder_stays_within_its_size_and_what_was_used_least_recently_goes(cached, folder):
    def prompts(batch: int) -> list[list[int]]:
        return [[2 + batch, 100 + number] for number in range(500)]

    with cached(size_limit_bytes=MIB) as served:
        embed(served, "kept", "forgotten")
        for batch in range(12):
            embed(served, *prompts(batch))
            embed(served, "kept")
        count = ran(served)
        assert count == 2 + 12 * 500
        embed(served, "kept", *prompts(11)[-50:])
        assert ran(served) == count
        embed(served, "forgotten")
        assert ran(served) == count + 1
    assert 0.5 * MIB < size_of(folder) <= 1.1 * MIB


def test_many_requests_at_a_time_get_what_is_theirs(cached):
    texts = [f"text {number}" for number in range(12)]
    with fake_model("embed") as plain:
        expected = {text: embed(plain, text).embeddings[0] for text in texts}
    with cached() as served, ThreadPoolExecutor(8) as pool:
        wanted = [[texts[(start + step) % 12] for step in range(5)] for start in range(60)]
        answers = pool.map(lambda some: embed(served, *some).embeddings, wanted)
        for some, rows in zip(wanted, answers, strict=True):
            assert np.array_equal(rows, np.stack([expected[text] for text in some]))


def test_how_many_results_were_known_is_logged(cached, caplog):
    with cached() as served, caplog.at_level(logging.DEBUG, "poolkit_plugins.cache"):
        embed(served, "a")
        embed(served, "a", "b", "b")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG] == [
        "embed/embeddings: 1 prompts, 0 results known, 1 prompts to run.",
        "embed/embeddings: 3 prompts, 1 results known, 1 prompts to run.",
    ]


@pytest.mark.parametrize("bad", [[], [5000], " ".join("long" for _ in range(100))])
def test_a_bad_prompt_is_told_by_its_index_whatever_is_known_of_the_others(cached, bad):
    with cached() as served:
        embed(served, "a")
        with pytest.raises(RequestError, match="Prompt 2 ") as caught:
            embed(served, "a", "b", bad)
        assert caught.value.errors.keys() == {2}
        assert [output is None for output in caught.value.outputs] == [False, False, True]


def test_a_failure_of_the_model_fails_alone_in_a_request_of_which_only_a_part_runs(cached):
    def backbone(task):
        return FakeBackbone(task, fails_on=lambda prompt: len(prompt.token_ids) > 3)

    with cached(backbone=backbone) as served:
        embed(served, "a")
        with pytest.raises(BatchError) as caught:
            embed(served, "a", "b c", "d")
        assert {index: type(error) for index, error in caught.value.errors.items()} == {1: EngineError}
        assert [output is None for output in caught.value.outputs] == [False, True, False]


def check_that_all_runs(served, *, times: int = 2) -> None:
    with fake_model("embed") as plain:
        expected = embed(plain, "a", "b").embeddings
    before = ran(served)
    for _ in range(times):
        assert np.array_equal(embed(served, "a", "b").embeddings, expected)
    assert ran(served) == before + 2 * times


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_that_cannot_be_made_is_told_and_everything_runs(cached, folder, caplog):
    folder.write_text("a file where the folder should be")
    with cached() as served:
        check_that_all_runs(served)
    [message] = set(warnings_of(caplog))
    assert message.startswith(f"The cache in {folder} cannot be opened, and every prompt runs: ")


def test_a_file_that_is_no_database_is_told_and_everything_runs(cached, folder, caplog):
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"no database at all " * 1000)
    with cached() as served:
        check_that_all_runs(served)
    assert set(warnings_of(caplog)) == {
        f"The cache in {folder} cannot be opened, and every prompt runs: file is not a database"
    }


def sql(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.execute(statement, values)


def test_a_database_that_breaks_while_it_is_used_is_told_once_and_everything_runs(cached, folder, caplog):
    with cached() as served:
        sql(folder, "DROP TABLE Cache")
        check_that_all_runs(served)
    [message] = warnings_of(caplog)
    assert message == f"The cache in {folder} failed, and prompts run: OperationalError('no such table: Cache')"


@pytest.mark.parametrize("value", [b"", b"no tensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_results_that_cannot_be_read_are_made_anew(cached, folder, caplog, value):
    with cached() as served:
        embed(served, "a", "b")
        sql(folder, "UPDATE Cache SET value = ?", value)
        check_that_all_runs(served, times=1)
        embed(served, "a", "b")
        assert ran(served) == 4
    assert len(warnings_of(caplog)) == 1


def test_a_pickle_in_the_folder_is_not_loaded(cached, folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    with cached() as served:
        embed(served, "a", "b")
        sql(folder, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Trap()))
        check_that_all_runs(served, times=1)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("missing", ["diskcache", "platformdirs"])
def test_without_its_libraries_the_plugin_says_how_to_get_them(cached, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "poolkit_plugins.cache._store", raising=False)
    with pytest.raises(PluginLoadError) as caught, cached():
        pass
    assert str(caught.value).splitlines()[0] == (
        f"poolkit-cache 0.1.0 failed in poolkit_wrap: ModuleNotFoundError: no module named {missing!r}. "
        "Install it with  python -m pip install 'poolkit[cache]'"
    )


def test_a_server_answers_from_the_cache(cached):
    with cached() as served:
        app = create_app(served)
        answers = [ask(app, "POST", "/v1/embeddings", json={"input": ["a", "b"]}) for _ in range(2)]
        assert ran(served) == 2
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["data"] == answers[1].json()["data"]


@pytest.mark.usefixtures("one_thread")
def test_offline_it_is_enabled_by_name_and_keeps_results_in_the_users_cache_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    with LLM(str(checkpoint("bert", max_seq_length=32)), enable=["cache"]) as llm:
        first, second = (llm.embed("a", use_tqdm=False)[0].outputs.embedding for _ in range(2))
    assert np.array_equal(first, second)
    assert (tmp_path / "poolkit" / "results" / "cache.db").is_file()
