"""The ways to run the kit: from the command line, and as tests of a plugin's own suite."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from poolkit.errors import PluginNotFoundError
from poolkit.testing import CheckResult, Verdict, check_plugin, fake_model, parametrize_with_checks

PRE = "return Prepared(request.texts, state=request.note)"
POST = "return Response(sums=[float(output.data.sum()) for output in outputs], note=prepared.state)"

LIMIT_S = 6.0
PATIENCE_S = 60.0


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


def test_a_plugin_that_ends_the_process_fails_the_check_and_is_asked_nothing_more(install):
    install({"return Response": "import os; os._exit(3) if ' 0' in prepared.prompts[0] else None; return Response"})
    results = {result.name: result for result in check_plugin("poolkit-sound")}
    assert results["order_is_kept"] == CheckResult(
        "order_is_kept", Verdict.FAILED, "a fresh interpreter ended with exit code 3."
    )
    assert results["bad_input_is_refused"] == CheckResult(
        "bad_input_is_refused", Verdict.SKIPPED, "the plugin did not survive order_is_kept"
    )
    assert results["routes_are_free"].verdict is Verdict.PASSED


def test_a_plugin_that_hangs_fails_the_check_and_is_told_where(install):
    """The processor takes a lock twice when two requests are in flight."""
    install(
        {
            PRE: f"self.lock.acquire(); {PRE}",
            POST: f"self.lock.release(); {POST}",
            "    def pre_process": "    def __init__(self, context):\n"
            "        import threading\n"
            "        self.lock = threading.Lock()\n\n"
            "    def pre_process",
        }
    )
    results = {result.name: result for result in check_plugin("poolkit-sound", limit_s=LIMIT_S)}
    assert results["order_is_kept"].verdict is Verdict.FAILED
    assert results["order_is_kept"].message == (
        f"there is no answer after {LIMIT_S:g} s. It hangs in Processor.pre_process (poolkit_sound.py, line 33)."
    )
    assert results["routes_are_free"].verdict is Verdict.PASSED


def test_the_command_does_not_hang_with_the_plugin(install, poolkit):
    install({PRE: f"import threading; threading.Event().wait(); {PRE}"})
    code, out, _ = poolkit("plugins", "check", "sound", "--limit", f"{LIMIT_S}", "--json")
    assert code == 1
    [failed] = [result for result in json.loads(out) if result["verdict"] == "failed"]
    assert failed["name"] == "hooks_are_quick"
    assert failed["message"] == (
        f"there is no answer after {LIMIT_S:g} s. It hangs in Processor.pre_process (poolkit_sound.py, line 29)."
    )


def test_the_process_of_the_checks_ends_with_the_one_that_asked(install, site, tmp_path):
    """Nobody who is killed can clean up, so the process itself must notice."""
    pid = tmp_path / "pid"
    write = f"import os, pathlib, threading; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
    install({PRE: f"{write}; threading.Event().wait(); {PRE}"})
    path = os.pathsep.join([str(site.path), *sys.path])
    command = [sys.executable, "-c", "from poolkit.testing import check_plugin; check_plugin('poolkit-sound')"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as asking:
        child = int(_wait_for(lambda: pid.read_text() if pid.exists() else ""))
        asking.kill()
    _wait_for(lambda: not _is_running(child))


def _wait_for(read):
    """Return what a function returns once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := read()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)
    return found


def _is_running(pid):
    try:
        return "(zombie)" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_settings_are_given_on_the_command_line(install, poolkit):
    install({"scale: float = 1.0": "scale: float = 1.0\n    words: str = ''"})
    code, out, _ = poolkit("plugins", "check", "sound", "--settings", "scale=2.5", "--settings", "words=a b", "--json")
    assert code == 0, out
    code, out, _ = poolkit("plugins", "check", "sound", "--settings", "scal=2.5", "--json")
    assert code == 1
    [failed] = [result for result in json.loads(out) if result["verdict"] == "failed"]
    assert failed["message"] == (
        "[plugins.poolkit-sound] scal: no such setting. Did you mean 'scale'? Settings: scale, words."
    )


def test_a_setting_has_a_name_and_a_value(install, poolkit):
    install()
    code, _, err = poolkit("plugins", "check", "sound", "--settings", "scale")
    assert code == 2
    assert "'scale' is no setting. Write it as KEY=VALUE." in err


def test_settings_of_a_suite_reach_the_plugin(install, pytest_of_plugin):
    install({"scale: float = 1.0": "scale: float"})
    code, out = pytest_of_plugin("settings={'scale': 2.0}")
    assert code == 0, out


LIMITER = """
    count = 0

    def pre_process(self, request):
        from poolkit.errors import OverloadedError
        Processor.count += 1
        if Processor.count > 40:
            raise OverloadedError("That was the fortieth request.", retry_after_s=60)
"""


def test_a_limit_on_requests_is_no_failure(install):
    install({"    def pre_process(self, request):\n": LIMITER})
    results = check_plugin("poolkit-sound")
    assert {result.verdict for result in results} == {Verdict.PASSED, Verdict.SKIPPED}
    assert (
        "the plugin answers with status 429: That was the fortieth request. Give it settings that let more requests "
        "through."
    ) in {result.message for result in results}


def test_a_head_that_was_not_run_is_told_of(install, site):
    (site.path / "poolkit_sound_fake.py").write_text(FAKE)
    install({"settings=Settings,": "settings=Settings, head='poolkit_sound:head',"}, fakes="poolkit_sound_fake:FAKE")
    results = {result.name: result for result in check_plugin("poolkit-sound")}
    assert results["heads_are_examined"] == CheckResult(
        "heads_are_examined",
        Verdict.SKIPPED,
        "'poolkit_sound:head' needs weights: the entry point in poolkit.fakes stood in for it",
    )


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
    assert (
        "\nSeveral inputs in one request get the answers that each gets alone, unless they are weighed "
        "together.\nsound/sum, example 0: 'sums' of 5 items of 'texts' is not what each of them gets alone."
    ) in out
    assert "UserWarning: routes_are_prefixed: the route '/sum' may be another plugin's as well." in out
    assert "1 failed, 36 passed, 14 skipped, 1 warning" in out


def test_an_expected_failure_is_one(install, pytest_of_plugin):
    install({"output.data.sum()": "output.data.sum() / len(outputs)"})
    code, out = pytest_of_plugin("expected_failures={'batch_equals_singles': 'sums are shares'}")
    assert code == 0
    assert "36 passed, 14 skipped, 1 xfailed" in out


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
        response = served.run("sum", bound.operation.request(texts=["a cat", "one"]))
        assert response.sums == [3 * 4, 3 * 3]
        assert served.info.embedding_size == 3
    assert {result.verdict for result in check_plugin("poolkit-sound")} == {"passed", "skipped"}
