"""The exception tree."""

import pickle

import pytest

from poolkit import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("no such setting"),
        errors.HookError("it failed", plugin="poolkit-x", task="ner", hook="pre_process"),
        errors.UnknownTaskError("no such task", task="ner"),
        errors.BatchError({1: ValueError("bad")}, [None, None]),
        errors.OverloadedError("too much", retry_after_s=3),
        errors.StartupError([errors.ConfigError("one"), errors.ConfigError("two")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_whole_from_another_process(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {name: repr(value) for name, value in vars(back).items()} == {
        name: repr(value) for name, value in vars(error).items()
    }
