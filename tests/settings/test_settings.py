"""Where each setting comes from, and what is said when one is wrong."""

from pathlib import Path

import pytest

from distributions import Site
from poolkit.config import Reference
from poolkit.errors import ConfigError
from poolkit.settings.settings import Given, Settings, resolve_settings, setting_paths


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "poolkit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_source_the_defaults_hold() -> None:
    resolved = resolve_settings({})
    assert resolved.settings == Settings()
    assert {row.origin for row in resolved.rows()} == {"default"}
    assert [row.name for row in resolved.rows()] == [
        ".".join(path) for path in setting_paths(Settings) if path != ("plugins",)
    ]


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'port = 1\nhost = "a"\nmodel = "m"\n[pooler_config]\ntask = "embed"\ndimensions = 8\n')
    monkeypatch.setenv("POOLKIT_PORT", "2")
    monkeypatch.setenv("POOLKIT_HOST", "b")
    monkeypatch.setenv("POOLKIT_POOLER_CONFIG__DIMENSIONS", "16")
    resolved = resolve_settings({("port",): Given(3, "--port")})
    settings = resolved.settings
    assert (settings.port, settings.host, settings.model) == (3, "b", "m")
    assert (settings.pooler_config.task, settings.pooler_config.dimensions) == ("embed", 16)
    origins = {row.name: row.origin for row in resolved.rows()}
    assert origins["port"] == "--port"
    assert origins["host"] == "POOLKIT_HOST"
    assert origins["model"] == origins["pooler_config.task"] == path
    assert origins["pooler_config.dimensions"] == "POOLKIT_POOLER_CONFIG__DIMENSIONS"
    assert origins["dtype"] == "default"


def test_a_named_file_is_read_instead_of_the_one_in_the_current_folder(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 2\n", encoding="utf-8")
    assert resolve_settings({}, config_file=other).settings.port == 2


def test_enabled_names_add_up_and_remember_who_named_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'enable = ["poolkit-gliner"]\ndisable = ["reward"]\n')
    monkeypatch.setenv("POOLKIT_ENABLE", "poolkit-geo, poolkit-splade")
    resolved = resolve_settings({("enable",): Given(["poolkit-ner"], "--plugin")})
    assert resolved.settings.enable == ("poolkit-gliner", "poolkit-geo", "poolkit-splade", "poolkit-ner")
    assert resolved.settings.disable == ("reward",)
    assert resolved.plugins.enable == (
        Reference("poolkit-gliner", path),
        Reference("poolkit-geo", "POOLKIT_ENABLE"),
        Reference("poolkit-splade", "POOLKIT_ENABLE"),
        Reference("poolkit-ner", "--plugin poolkit-ner"),
    )
    assert resolved.plugins.disable == (Reference("reward", path),)
    assert {row.name: str(row.origin) for row in resolved.rows()}["enable"] == (
        f"{path}, POOLKIT_ENABLE, --plugin poolkit-ner"
    )


def test_the_command_line_disables_what_the_file_enables(tmp_path: Path) -> None:
    write(tmp_path, 'enable = ["poolkit_gliner"]\n')
    resolved = resolve_settings({("disable",): Given(["poolkit-gliner"], "--no-plugin")})
    assert resolved.settings.enable == ()
    assert resolved.settings.disable == ("poolkit-gliner",)


def test_plugin_settings_come_from_file_and_environment_under_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, '[plugins.poolkit_gliner]\nthreshold = 0.4\nlabels = ["a"]\n')
    monkeypatch.setenv("POOLKIT_PLUGINS__POOLKIT_GLINER__THRESHOLD", "0.5")
    resolved = resolve_settings({})
    table = resolved.settings.plugins["poolkit-gliner"]
    assert float(table["threshold"]) == 0.5
    assert table["labels"] == ["a"]
    origins = {row.name: row.origin for row in resolved.rows()}
    assert origins["plugins.poolkit-gliner.threshold"] == "POOLKIT_PLUGINS__POOLKIT_GLINER__THRESHOLD"


def test_json_in_the_environment_fills_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKIT_HF_OVERRIDES", '{"a": {"b": 1}}')
    assert resolve_settings({}).settings.hf_overrides == {"a": {"b": 1}}


def test_bad_json_in_the_environment_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKIT_HF_OVERRIDES", "{")
    with pytest.raises(ConfigError) as caught:
        resolve_settings({})
    assert str(caught.value) == (
        "Environment variable POOLKIT_HF_OVERRIDES is not valid JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."
    )


def test_unknown_keys_are_reported_together_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'modle = "m"\n[pooler_config]\ntsk = "embed"\n')
    monkeypatch.setenv("POOLKIT_POOLER_CONFIG__TASKS", "embed")
    monkeypatch.setenv("POOLKIT_ZZZZ", "1")
    with pytest.raises(ConfigError) as caught:
        resolve_settings({})
    assert str(caught.value).splitlines() == [
        f"{path}: there is no setting 'modle'. Did you mean 'model'?",
        f"{path}: there is no setting 'pooler_config.tsk'. Did you mean 'task'?",
        "Environment variable POOLKIT_POOLER_CONFIG__TASKS: there is no such setting. "
        "Did you mean 'POOLKIT_POOLER_CONFIG__TASK'?",
        "Environment variable POOLKIT_ZZZZ: there is no such setting. Run  poolkit config  to see every setting.",
    ]


def test_a_variable_named_as_an_installed_distribution_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLKIT_FAST_SUMS", "off")
    with pytest.raises(ConfigError, match="Environment variable POOLKIT_FAST_SUMS: there is no such setting"):
        resolve_settings({})
    Site(tmp_path).install("poolkit-fast-sums")
    monkeypatch.syspath_prepend(tmp_path)
    resolve_settings({})


def test_wrong_values_are_reported_together_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'dtype = "fp16"\nplugins = ["poolkit-gliner"]\nenable = [1]\n')
    monkeypatch.setenv("POOLKIT_PORT", "http")
    with pytest.raises(ConfigError) as caught:
        resolve_settings({("max_model_len",): Given(0, "--max-model-len")})
    assert sorted(str(caught.value).splitlines()) == [
        f"dtype must be 'auto', 'float32', 'bfloat16', 'float16' or 'int8', got 'fp16'. It comes from {path}.",
        f"enable must be a string or a list of strings. It comes from {path}.",
        "max_model_len must be greater than or equal to 1, got 0. It comes from --max-model-len.",
        f"plugins is for tables such as [plugins.poolkit-gliner]; name the plugins to use in 'enable'. "
        f"It comes from {path}.",
        "port must be an integer, got 'http'. It comes from POOLKIT_PORT.",
    ]


def test_an_empty_key_is_refused_rather_than_leaving_the_server_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKIT_API_KEY", "")
    with pytest.raises(ConfigError) as caught:
        resolve_settings({})
    assert str(caught.value) == "api_key is empty. It comes from POOLKIT_API_KEY."


def test_an_empty_list_of_plugins_in_the_environment_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKIT_ENABLE", "")
    assert resolve_settings({}).settings.enable == ()


def test_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLKIT_API_KEY", "first-secret,second-secret")
    resolved = resolve_settings({})
    assert [key.get_secret_value() for key in resolved.settings.api_key] == ["first-secret", "second-secret"]
    shown = f"{resolved} {list(resolved.rows())} {resolved.settings!r}"
    assert "secret" not in shown.replace("SecretStr", "")
    assert {row.name: row.value for row in resolved.rows()}["api_key"] == "<2 hidden>"


def test_a_file_that_is_not_toml_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, "port = \n")
    with pytest.raises(ConfigError) as caught:
        resolve_settings({})
    assert str(caught.value) == (f"The settings file {path} is not valid TOML: Invalid value (at line 1, column 8).")


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_settings({}, config_file=tmp_path / "none.toml")
    assert str(caught.value) == (
        f"The settings file {tmp_path / 'none.toml'} cannot be read: No such file or directory."
    )
