"""Walks the way of docs/write-a-plugin.md, from an empty directory to the first answer, as a new user would.

The page's own commands run in a fresh virtual environment, with poolkit's wheel where the page names poolkit. Of what
poolkit needs nothing is downloaded: the environment has links to the packages of the one that runs this script. At the
end the plugin that was written passes its own tests.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "write-a-plugin.md"
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

PACKAGE = "'poolkit[demo]'"
ADDRESS = "127.0.0.1:8000"
SERVE = "poolkit serve"
LISTENING = re.compile(r"http://(127\.0\.0\.1):(\d+)")


def main() -> None:
    """Run the commands and print how long each took."""
    found = COMMANDS.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"{PAGE} has no block of commands."
    commands = found[1].splitlines()
    assert PACKAGE in commands[0], f"The first command of {PAGE} does not install {PACKAGE}."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder / "wheel")
        environment = make_environment(folder / "venv")
        empty = folder / "empty"
        empty.mkdir()
        commands[0] = commands[0].replace(PACKAGE, f"'{wheel}[demo]'")
        walk(commands, environment, empty)
        print(run("python -m pytest -q poolkit-*/", environment, empty))


def build_wheel(folder: Path) -> Path:
    """Build poolkit."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    [wheel] = folder.iterdir()
    return wheel


def make_environment(folder: Path) -> dict[str, str]:
    """Create a virtual environment with everything but poolkit in it; return the variables of its activated shell."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "poolkit" not in package.name:
            (packages / package.name).symlink_to(package)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POOLKIT_", "PYTHON"))}
    return {
        **inherited,
        "VIRTUAL_ENV": str(folder),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "POOLKIT_PORT": "0",
    }


def walk(commands: list[str], environment: dict[str, str], folder: Path) -> None:
    """Run the commands one after the other: the server goes on while the last one asks it."""
    server: subprocess.Popen[str] | None = None
    address = ADDRESS
    started = time.perf_counter()
    try:
        for command in commands:
            before = time.perf_counter()
            if command.startswith(SERVE):
                server = start(command, environment, folder)
                address = wait_until_it_listens(server)
                shown = address
            else:
                shown = run(command.replace(ADDRESS, address), environment, folder)
            print(f"{time.perf_counter() - before:5.1f} s  $ {command}", flush=True)
        print(f"{time.perf_counter() - started:5.1f} s  to the first answer, with {len(commands)} commands: {shown}")
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate()
    assert server is not None, f"{PAGE} starts no server."
    assert server.returncode == 0, log


def run(command: str, environment: dict[str, str], folder: Path) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        ["bash", "-c", command], env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"$ {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def start(command: str, environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    """Start a command that goes on."""
    return subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_it_listens(server: subprocess.Popen[str]) -> str:
    """Return the address that the server says it listens on."""
    assert server.stderr is not None
    log = []
    for line in server.stderr:
        log.append(line)
        if found := LISTENING.search(line):
            break
    else:
        raise SystemExit("".join(log))
    while server.poll() is None:  # it says so a moment before it does
        try:
            socket.create_connection((found[1], int(found[2]))).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            break
    return f"{found[1]}:{found[2]}"


if __name__ == "__main__":
    main()
