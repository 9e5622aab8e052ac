"""The public surface is a list, and importing it is light."""

import subprocess
import sys

import pytest

import poolkit
import poolkit.errors
import poolkit.testing


@pytest.mark.parametrize("module", [poolkit, poolkit.errors, poolkit.testing])
def test_public_names_are_sorted_and_there(module):
    names = list(module.__all__)
    constants = [name for name in names if name.isupper()]
    classes = [name for name in names if not name.isupper() and name[0].isupper()]
    functions = [name for name in names if name[0].islower()]
    assert names == [*sorted(constants), *sorted(classes), *sorted(functions)]
    assert all(hasattr(module, name) for name in names)


def test_a_name_that_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match=r"^module 'poolkit' has no attribute 'LMM'\Z"):
        _ = poolkit.LMM


@pytest.mark.parametrize("statement", ["import poolkit", "from poolkit import LLM"])
def test_the_public_names_load_nothing_heavy(statement):
    heavy = {"torch", "transformers", "uvicorn", "tokenizers", "typer", "poolkit_tasks"}
    program = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
