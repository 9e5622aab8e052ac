"""The ways to run the kit: from the command line, and as tests of a plugin's own suite."""

import json
import os
import re
import subprocess
import sys

import pytest

from poolkit.errors import PluginNotFoundError
from poolkit.testing import check_plugin, fake_model, parametrize_with_checks
from poolkit.testing.fresh import DiedError, run_fresh


def test_the_command_prints_a_line_for_each_check_and_a_count(install, poolkit):
    install({"api=1": "api=7"})
    code, out, _ = poolkit("plugins", "check", "sound")
    assert code == 1
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:2] == ["check verdict message", "import_is_survived passed"]
    assert "api_is_supported failed task 'sound' has api=7; poolkit supports 1 to 1." in lines
    assert "plugin_loads skipped it needs api_is_supported, which did not pass" in lines
    assert lines[-1].startswith("poolkit-sound 1.0.0: 7 passed, 1 failed, ")


def test_the_command_ends_well_for_a_sound_plugin(install, poolkit):
    install()
    code, out, _ = poolkit("plugins", "check", "poolkit-sound", "--json")
    assert code == 0
    results = json.loads(out)
    assert results[0] == {"name": "import_is_survived", "verdict": "passed", "message": ""}
    assert [result["name"] for result in results] == [result.name for result in check_plugin("poolkit-sound")]


def test_a_plugin_that_ends_the_process_is_told_of(install, poolkit):
    install({"return Prepared": "import os; os._exit(3); return Prepared"})
    code, out, _ = poolkit("plugins", "check", "poolkit-sound", "--json")
    assert code == 1
    assert json.loads(out) == [
        {
            "name": "process_survives",
            "verdict": "failed",
            "message": "a fresh interpreter ended with exit code 3.",
        }
    ]


def test_a_plugin_that_never_ends_is_given_up():
    with pytest.raises(DiedError) as caught:
        run_fresh("poolkit.testing", "poolkit", limit_s=0.01)
    assert str(caught.value) == "a fresh interpreter gave no answer in 0.01 s"


@pytest.mark.usefixtures("site")
def test_a_plugin_that_is_not_installed_is_told_of():
    with pytest.raises(PluginNotFoundError) as caught:
        check_plugin("nothing")
    assert str(caught.value) == (
        f"plugin 'nothing', named for the conformance kit, is not installed in {sys.prefix}.\n"
        "  Install it with  python -m pip install nothing.  Installed plugins: poolkit 0.1.0."
    )


@pytest.fixture
def pytest_of_plugin(site, tmp_path):
    """Return a function that runs a plugin's own test file and returns pytest's exit code and last line."""

    def run(arguments):
        (tmp_path / "test_plugin.py").write_text(
            "from poolkit.testing import parametrize_with_checks\n\n\n"
            f"@parametrize_with_checks('poolkit-sound', {arguments})\n"
            "def test_conformance(check):\n    check()\n"
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_plugin.py"]
        path = os.pathsep.join([str(site.path), *sys.path])
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    return run


def test_a_suite_has_a_test_for_each_check(install, pytest_of_plugin):
    install({"output.data.sum()": "output.data.sum() / len(outputs)", '"/sound/sum"': '"/sum"'})
    code, out = pytest_of_plugin("")
    assert code == 1
    assert "FAILED test_plugin.py::test_conformance[batch_equals_singles] - Failed: " in out
    assert "\nSeveral inputs in one request get the answers that each gets alone.\nsound/sum, example 0: 'sums'" in out
    assert "UserWarning: routes_are_prefixed: the route '/sum' may be another plugin's as well." in out
    assert "1 failed, 24 passed, 1 warning" in out


def test_an_expected_failure_is_one(install, pytest_of_plugin):
    install({"output.data.sum()": "output.data.sum() / len(outputs)"})
    code, out = pytest_of_plugin("expected_failures={'batch_equals_singles': 'sums are shares'}")
    assert code == 0
    assert "24 passed, 1 xfailed" in out


def test_an_expected_failure_that_passes_is_a_failure(install, pytest_of_plugin):
    install()
    code, out = pytest_of_plugin("expected_failures={'batch_equals_singles': 'sums are shares'}")
    assert code == 1
    assert "[XPASS(strict)] sums are shares" in out


def test_an_expected_failure_names_a_check():
    message = re.escape("there is no check named 'order_is_kep'. Did you mean 'order_is_kept'?")
    with pytest.raises(ValueError, match=f"^{message}$"):
        parametrize_with_checks("poolkit-sound", expected_failures={"order_is_kep": "it sorts"})


def test_an_expected_failure_has_a_reason():
    message = re.escape("the expected failure of 'order_is_kept' has no reason. Say why it fails.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        parametrize_with_checks("poolkit-sound", expected_failures={"order_is_kept": ""})


FAKE = """
import dataclasses
import numpy
from poolkit import VectorSpec
from poolkit.testing import FAKE_MODEL, Fake

def count(prompt):
    return numpy.full(3, len(prompt.token_ids), numpy.float32)

FAKE = Fake(model=dataclasses.replace(FAKE_MODEL, vector=VectorSpec(size=3)), draw=count)
"""


def test_a_plugin_can_say_what_stands_in_for_its_model(install, site):
    (site.path / "poolkit_sound_fake.py").write_text(FAKE)
    install({"settings=Settings,": "settings=Settings, head='poolkit_sound:head',"}, fakes="poolkit_sound_fake:FAKE")
    with fake_model("sound", plugin="poolkit-sound") as served:
        [bound] = served.operations.values()
        response = served.run("sum", bound.operation.request(input=["a cat", "one"]))
        assert response.sums == [3 * 4, 3 * 3]
        assert served.info.embedding_size == 3
    assert {result.verdict for result in check_plugin("poolkit-sound")} == {"passed"}
