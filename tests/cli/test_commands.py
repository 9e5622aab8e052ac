"""The command line: what it prints, what it writes, and how it ends."""

import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from poolkit.cli import main


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def poolkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line and returns its exit code, output and error output."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poolkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def test_help_names_every_command_and_the_first_step(poolkit):
    code, out, _ = poolkit("--help")
    assert code == 0
    assert "Run  poolkit demo  to see it work" in out
    for command in ("demo", "serve", "embed", "inspect", "config", "plugins"):
        assert f"\n  {command} " in out


def test_the_version_is_shown(poolkit):
    assert poolkit("--version") == (0, "poolkit 0.1.0\n", "")


def test_a_mistyped_command_gets_a_suggestion(poolkit):
    code, _, err = poolkit("sevre")
    assert code == 2
    assert "No such command 'sevre'. Did you mean 'serve'?" in err


def test_a_mistyped_option_gets_a_suggestion(poolkit):
    code, _, err = poolkit("serve", "--pooler-config.taks", "embed")
    assert code == 2
    assert "--pooler-config.task" in err


@pytest.mark.parametrize("prefix", ["--no-", "--no-pooler-config."])
def test_late_interaction_next_to_the_model_can_be_switched_off(poolkit, prefix):
    code, out, _ = poolkit("config", f"{prefix}enable-flash-late-interaction")
    assert code == 0
    [row] = [line.split() for line in out.splitlines() if "flash" in line]
    assert row == [
        "pooler_config.enable_flash_late_interaction",
        "False",
        "--no-pooler-config.enable-flash-late-interaction",
    ]


def test_every_setting_of_the_pooler_is_an_option(poolkit):
    from poolkit import PoolerConfig

    _, out, _ = poolkit("serve", "--help")
    for field in PoolerConfig.model_fields:
        assert f"--pooler-config.{field.replace('_', '-')}" in out


def test_config_shows_values_and_where_they_come_from(poolkit, tmp_path, monkeypatch):
    (tmp_path / "poolkit.toml").write_text('port = 1\n[plugins.x]\na = "b"\n', encoding="utf-8")
    monkeypatch.setenv("POOLKIT_API_KEY", "a-secret")
    code, out, _ = poolkit("config", "some/model", "--max_model_len", "7", "--pooler-config.pooling_type", "MEAN")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["model"] == ["some/model", "MODEL"]
    assert rows["max_model_len"] == ["7", "--max-model-len"]
    assert rows["pooler_config.pooling_type"] == ["MEAN", "--pooler-config.pooling-type"]
    assert rows["port"] == ["1", str(tmp_path / "poolkit.toml")]
    assert rows["plugins.x.a"] == ["b", str(tmp_path / "poolkit.toml")]
    assert rows["dtype"] == ["auto", "default"]
    assert rows["api_key"] == ["<1", "hidden>", "POOLKIT_API_KEY"]
    assert "a-secret" not in out


def test_a_switch_of_the_command_line_beats_the_file_both_ways(poolkit, tmp_path):
    (tmp_path / "poolkit.toml").write_text("insecure = true\n", encoding="utf-8")
    _, out, _ = poolkit("config", "--no-insecure")
    assert ["insecure", "False", "--no-insecure"] in [line.split() for line in out.splitlines()]


def test_a_wrong_setting_ends_with_a_message_and_no_traceback(poolkit):
    code, out, err = poolkit("config", "--dtype", "fp16")
    assert (code, out) == (2, "")
    assert err == (
        "ConfigError: dtype must be 'auto', 'float32', 'bfloat16', 'float16' or 'int8', got 'fp16'. It comes from "
        "--dtype.\n"
    )


def test_json_options_are_checked(poolkit):
    code, _, err = poolkit("config", "--hf-overrides", "{")
    assert code == 2
    assert err == (
        "ConfigError: --hf-overrides must be a JSON object: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1).\n"
    )


def test_serving_others_without_a_key_is_refused(poolkit):
    code, _, err = poolkit("serve", "--host", "0.0.0.0")
    assert code == 2
    assert err == (
        "ConfigError: host '0.0.0.0' is open to other machines, and no API key is set. Set one (--api-key, "
        "POOLKIT_API_KEY or api_key in poolkit.toml), listen on 127.0.0.1, or say --insecure to let everybody in.\n"
    )


def test_a_taken_port_is_told_before_the_model_is_loaded(poolkit):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = poolkit("serve", "no/such-model", "--port", port)
    assert code == 2
    assert (
        err == f"ConfigError: 127.0.0.1:{port} cannot be listened on: Address already in use. Choose another --port.\n"
    )


def test_plugins_list_shows_the_built_in_task(poolkit):
    code, out, _ = poolkit("plugins", "list")
    assert code == 0
    assert ["enabled", "task", "embed", "poolkit", "0.1.0", "poolkit_tasks.embed:EMBED", "built", "in"] in [
        line.split() for line in out.splitlines()
    ]


def test_plugins_list_speaks_json_and_says_what_is_missing(poolkit):
    code, out, _ = poolkit("plugins", "list", "--json", "--plugin", "no-such-plugin")
    assert code == 0
    *_, missing = json.loads(out)
    assert sorted(missing) == ["entry_point", "kind", "name", "plugin", "status", "version", "why"]
    assert (missing["status"], missing["plugin"]) == ("missing", "no-such-plugin")
    assert missing["why"].startswith("plugin 'no-such-plugin', enabled by --plugin no-such-plugin, is not installed")


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "list"], ["config"]])
def test_what_runs_no_model_loads_no_model_library(arguments):
    program = (
        "import sys\n"
        f"sys.argv = ['poolkit', *{arguments!r}]\n"
        "from poolkit.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "loaded = {'torch', 'transformers', 'uvicorn', 'poolkit_tasks'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def embed(poolkit, minilm):
    """Return a function that embeds with the packaged MiniLM in float32."""
    return lambda *arguments: poolkit("embed", "--model", minilm, "--dtype", "float32", *arguments)


def test_lines_of_text_become_rows_of_an_array(embed, tmp_path):
    (tmp_path / "in.txt").write_text("A cat sat.\nStocks fell.\nThe kitten slept.\n", encoding="utf-8")
    code, out, err = embed("in.txt", "-o", "out.npy")
    assert (code, out) == (0, "")
    vectors = np.load(tmp_path / "out.npy")
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
    assert "Wrote 3 vectors of 384 numbers to out.npy (" in err


def test_json_lines_keep_their_order_and_text(embed, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "A cat sat.", "id": 7}\n\n"Stocks fell."\n', encoding="utf-8")
    assert embed("in.jsonl", "-o", "out.jsonl")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["index"], line["text"], len(line["embedding"])) for line in lines] == [
        (0, "A cat sat.", 384),
        (1, "Stocks fell.", 384),
    ]


def test_standard_input_is_read_line_by_line(embed, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert embed("-", "-o", "out.npy")[0] == 0
    assert np.load(tmp_path / "out.npy").shape == (2, 384)


def test_texts_that_cannot_be_embedded_are_told_by_line_and_nothing_is_written(embed, tmp_path):
    (tmp_path / "in.txt").write_text(f"fine\n{'long ' * 600}\nfine\n", encoding="utf-8")
    code, _, err = embed("in.txt", "-o", "out.npy")
    assert code == 1
    message = err[err.index("RequestError") :]
    assert message.startswith(
        "RequestError: 1 of 3 texts failed; nothing was written.\n  in.txt:2: Prompt 1 has 602 tok"
    )
    assert not (tmp_path / "out.npy").exists()
    assert embed("in.txt", "-o", "out.npy", "--truncate-prompt-tokens", -1)[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.txt", b"", "in.txt holds no text."),
        ("in.txt", b"fine\n\xff\n", "in.txt is not UTF-8 text: invalid start byte at byte 5."),
        ("in.jsonl", b'"fine"\n{"text": }\n', None),
        ("in.jsonl", b'"fine"\n[1]\n', 'in.jsonl:2 must be a string, or an object with a string under "text".'),
        ("in.jsonl", b'{"txt": "a"}\n', 'in.jsonl:1 must be a string, or an object with a string under "text".'),
        ("none.txt", None, "none.txt cannot be read: No such file or directory."),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(poolkit, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = poolkit("embed", name, "-o", "out.npy")
    assert code == 1
    if message is None:
        assert err.startswith("RequestError: in.jsonl:2 is not valid JSON: ")
    else:
        assert err == f"RequestError: {message}\n"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.csv", "'out.csv' must end in .npy or .jsonl"),
        ("none/out.npy", "there is no folder 'none'"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_anything_is_loaded(poolkit, output, message):
    code, _, err = poolkit("embed", "in.txt", "-o", output)
    assert code == 2
    assert f"Invalid value for --output: {message}" in err


def test_demo_answers_its_questions(poolkit):
    code, out, _ = poolkit("demo", "--dtype", "float32")
    assert code == 0
    lines = out.splitlines()
    first_answer = lines[lines.index("Who worked out how to read the writing of the pharaohs?") + 1]
    assert "The stone that unlocked the hieroglyphs" in first_answer
    assert " texts/s, " in lines[-1]
