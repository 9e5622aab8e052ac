"""The wheel, the editable install, and the cost of `import poolkit`."""

import configparser
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from poolkit.demo import load_texts

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOP_LEVEL_NAMES = ["poolkit", "poolkit_plugins", "poolkit_tasks"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    [path] = folder.iterdir()
    return path


@pytest.fixture(scope="session")
def wheel_files(wheel):
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run_python(code, **environment):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return done.stdout.split()


def test_the_wheel_has_exactly_three_top_level_names(wheel_files):
    names = {name.partition("/")[0] for name in wheel_files}

    assert sorted(name for name in names if not name.endswith(".dist-info")) == TOP_LEVEL_NAMES


def test_the_editable_install_puts_the_same_three_names_on_the_path():
    [path_file] = Path(sysconfig.get_path("purelib")).glob("_editable_impl_poolkit.pth")
    folders = path_file.read_text(encoding="utf-8").splitlines()

    found = [child.name for folder in folders for child in Path(folder).iterdir() if child.name != "__pycache__"]

    assert sorted(found) == TOP_LEVEL_NAMES


def test_the_wheel_tells_type_checkers_that_its_packages_are_typed(wheel_files):
    typed = sorted(name.partition("/")[0] for name in wheel_files if name.endswith("/py.typed"))

    assert typed == TOP_LEVEL_NAMES


def test_the_wheel_carries_the_entry_points_of_pyproject(wheel_files):
    [content] = [data for name, data in wheel_files.items() if name.endswith(".dist-info/entry_points.txt")]
    parser = configparser.ConfigParser(delimiters="=")
    parser.optionxform = str  # names keep their capitals
    parser.read_string(content.decode())

    found = {group: dict(parser[group]) for group in parser.sections()}

    assert found == {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}


def test_the_wheel_carries_the_licence(wheel_files):
    [content] = [data for name, data in wheel_files.items() if name.endswith(".dist-info/licenses/LICENSE")]

    assert content == (ROOT / "LICENSE").read_bytes()


def test_the_demo_texts_can_be_read_from_the_wheel(wheel):
    code = "import poolkit.demo as d; print(d.__file__.count('.whl'), len(d.load_texts()))"

    assert run_python(code, PYTHONPATH=str(wheel)) == ["1", str(len(load_texts()))]


def test_every_requirement_is_pinned_at_a_version_it_allows():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"].values()
    declared = [Requirement(line) for lines in (PROJECT["dependencies"], *extras) for line in lines]

    wrong = [
        str(requirement)
        for requirement in declared
        if requirement.name != PROJECT["name"] and not requirement.specifier.contains(pins.get(requirement.name, "0"))
    ]

    assert wrong == []
