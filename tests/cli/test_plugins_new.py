"""`poolkit plugins new`: what it writes installs, passes its own tests and keeps to the linters' rules, as it is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from poolkit.cli import main
from poolkit.cli.plugins_new import Kind

ROOT = Path(__file__).parents[2]
NAME = "the-mood-of-sentences-in-old-letters2"
"""With hyphens and a digit, and long: a name that would show where the template takes one for granted."""
SHORT_NAME = "x"

TASK = "the_mood_of_sentences_in_old_letters2"
PLUGIN = f"poolkit-{NAME}"
MODULE = f"poolkit_{TASK}"

FILES = [
    "README.md",
    "pyproject.toml",
    f"src/{MODULE}/__init__.py",
    f"src/{MODULE}/processors.py",
    f"src/{MODULE}/py.typed",
    "tests/test_plugin.py",
]
"""The files of a package with a task."""


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `poolkit plugins new` and returns its exit code, output and error output."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["poolkit", "plugins", "new", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def run_module(*arguments: object, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=Kind)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def package(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a package of a kind, as it was written."""
    folder = tmp_path_factory.mktemp("empty")
    command = [sys.executable, "-c", "from poolkit.cli import main; main()", "plugins", "new", NAME, "--kind", kind]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / PLUGIN


@pytest.fixture(scope="module")
def site(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of a process in which the package is installed."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", folder)
    run_module("pip", "install", *options, package, folder=package.parent)
    return {"PYTHONPATH": str(folder)}


def test_it_writes_a_package_and_tells_the_next_commands(new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert new(NAME) == (
        0,
        f"Wrote 6 files to {PLUGIN}. Next:\n"
        f"  python -m pip install ./{PLUGIN}\n"
        f"  poolkit serve --plugin {PLUGIN} --task {TASK}\n"
        f"  curl -s http://127.0.0.1:8000/{NAME}/compare"
        """ -d '{"query": "Why does dough grow?", "texts": ["Yeast makes gas.", "Stock prices fell."]}'\n""",
        "",
    )
    package = tmp_path / PLUGIN
    assert sorted(path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()) == FILES


def test_nothing_of_the_template_is_left(package):
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*") if path.is_file()]
    assert len(texts) >= 5
    for text in texts:
        assert "${" not in text
        assert "$m" not in text
        assert ".template" not in text


def test_it_speaks_json(new, tmp_path):
    code, out, _ = new(NAME, "--output", tmp_path, "--json")

    told = json.loads(out)
    assert code == 0
    assert told["folder"] == str(tmp_path / PLUGIN)
    assert told["files"] == FILES
    assert told["next"][0] == f"python -m pip install {told['folder']}"


def test_the_full_name_of_the_plugin_is_understood(new, tmp_path):
    assert new("poolkit-ner", "--output", tmp_path)[0] == 0
    assert (tmp_path / "poolkit-ner" / "src" / "poolkit_ner").is_dir()


@pytest.mark.parametrize("name", ["Ner", "1st", "a_b", "a--b", "a-", "ner/x", "poolkit-"])
def test_a_name_that_cannot_be_one_is_refused(new, tmp_path, name):
    code, out, err = new(name, "--output", tmp_path)

    assert (code, out) == (2, "")
    shown = name.removeprefix("poolkit-")
    assert err.splitlines()[-1] == (
        f"Error: Invalid value for NAME: {shown!r} cannot be the name of a task and of a distribution. "
        "Use lower-case letters, digits and single hyphens, a letter first."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("embed", "'embed' is a name of poolkit's own (task). Choose another name"),
        ("openai", "'openai' is a name of poolkit's own (dialect). Choose another name"),
        ("tasks", "there is a package poolkit_tasks already, in {}. Choose another name"),
    ],
)
def test_a_name_that_poolkit_uses_is_refused(new, tmp_path, name, problem):
    import poolkit_tasks

    code, _, err = new(name, "--output", tmp_path)

    assert code == 2
    assert err.splitlines()[-1] == f"Error: Invalid value for NAME: {problem.format(poolkit_tasks.__file__)}"


def test_a_folder_that_is_there_is_left_as_it_is(new, tmp_path):
    folder = tmp_path / PLUGIN
    folder.mkdir()

    code, _, err = new(NAME, "--output", tmp_path)

    assert code == 2
    assert err.splitlines()[-1] == (f"Error: Invalid value for NAME: '{folder}' is there already, and is left as it is")
    assert list(folder.iterdir()) == []


def test_the_written_package_passes_its_own_tests(package, site):
    assert " passed" in run_module("pytest", "-W", "error", "-p", "no:cacheprovider", folder=package, environment=site)


def test_the_written_package_is_linted_and_formatted(new, kind, package, tmp_path):
    new(SHORT_NAME, "--kind", kind, "--output", tmp_path)
    for folder in (package, tmp_path / f"poolkit-{SHORT_NAME}"):
        run_module("ruff", "check", "--isolated", "--no-cache", folder=folder)
        run_module("ruff", "format", "--isolated", "--no-cache", "--check", folder=folder)


def test_the_written_package_is_strictly_typed(package, site):
    run_module("mypy", "--cache-dir", ROOT / ".mypy_cache" / "written", folder=package, environment=site)


def test_the_commands_that_are_told_get_an_answer(new, kind, tmp_path, site):
    _, out, _ = new(NAME, "--kind", kind, "--output", tmp_path, "--json")
    _, serve, curl = json.loads(out)["next"]
    [path, body] = re.fullmatch(r"curl -s http://127\.0\.0\.1:8000(\S+) -d '(.*)'", curl).groups()
    code = (
        "import asyncio, httpx, sys\n"
        "from poolkit import LLM, create_app\n"
        "from poolkit.testing import fake_model\n"
        "serve, path, body = sys.argv[1:]\n"
        "words = serve.split()[2:]\n"
        "options = dict(zip(words[::2], words[1::2], strict=True))\n"
        "async def send(app):\n"
        "    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://test') as client:\n"
        "        return await client.post(path, content=body)\n"
        "if '--engine' in options:\n"
        "    model = LLM(engine=options['--engine'], enable=[options['--plugin']])\n"
        "else:\n"
        "    model = fake_model(options.get('--task', 'embed'), plugin=options['--plugin'])\n"
        "with model as served:\n"
        "    response = asyncio.run(send(create_app(served)))\n"
        "print(response.status_code)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, serve, path, body], env={**os.environ, **site}, capture_output=True, text=True
    )

    assert shown.stdout == "200\n", shown.stderr
