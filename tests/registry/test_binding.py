"""A task with its behaviour: settings, processors, and what becomes of failures in a hook."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distributions import Request, Response, Site, fake_encoder, make_model, make_task
from poolkit.config import PluginConfig, Reference
from poolkit.contract import PooledOutput, Prepared
from poolkit.errors import (
    HookError,
    PluginConfigError,
    PluginInvalidError,
    PluginLoadError,
    RequestError,
    StartupError,
    UnknownTaskError,
)
from poolkit.registry import BoundOperation, BoundTask, Registry

DESCRIPTOR = """
from pydantic import BaseModel, ConfigDict
from distributions import make_task
class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    threshold: float = 0.5
    labels: list[str] = []
class OtherSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 1
NER = make_task("ner", settings=Settings, io_processor="gliner_processors:NERProcessor")
TREE = make_task("tree", settings=OtherSettings)
"""
HEADER = """
import sys
from distributions import Processor, Request, Response
from poolkit.contract import LateInteractionParams, PoolingIOProcessor, PoolingParams, Prepared, hookimpl
from poolkit.errors import RequestError
"""
OUTPUTS = [PooledOutput(np.zeros(size, np.float32), (1, 2)) for size in (3, 4)]


def bind(
    site: Site, processor: str, settings: dict[str, object] | None = None, *, descriptor: str = DESCRIPTOR
) -> BoundTask:
    """Bind task ner of poolkit-gliner 0.3.1, whose processor module ends in this source."""
    site.install(
        "poolkit-gliner",
        "0.3.1",
        modules={"poolkit_gliner": descriptor, "gliner_processors": HEADER + processor},
        tasks={"ner": "poolkit_gliner:NER"} | ({"tree": "poolkit_gliner:TREE"} if "TREE" in descriptor else {}),
    )
    enable = (Reference("poolkit-gliner", "--plugin poolkit-gliner"),)
    registry = Registry.load(
        PluginConfig(enable=enable, settings={} if settings is None else {"poolkit_gliner": settings})
    )
    return registry.bind(registry.get_pooling_task(["ner"], "ner"), make_model(), fake_encoder())


def bind_hook(site: Site, **hooks: str) -> BoundOperation:
    """Bind a processor whose hooks do these statements."""
    arguments = {"pre_process": "request", "post_process": "prepared, outputs"}
    methods = "".join(f"    def {hook}(self, {arguments[hook]}):\n        {body}\n" for hook, body in hooks.items())
    return bind(site, f"class NERProcessor(Processor):\n{methods}").operations["measure"]


def pre_process(operation: BoundOperation) -> object:
    return operation.pre_process(Request(texts=["a", "b"]))


def post_process(operation: BoundOperation) -> object:
    return operation.post_process(Prepared(["a", "b"]), OUTPUTS)


def test_a_request_goes_through_both_hooks(site: Site):
    bound = bind(site, "class NERProcessor(Processor): pass\n")
    assert (bound.task.name, str(bound.plugin), tuple(bound.operations)) == (
        "ner",
        "poolkit-gliner 0.3.1",
        ("measure",),
    )
    operation = bound.operations["measure"]
    assert (operation.operation, operation.task, operation.plugin) == (bound.task.operations[0], "ner", bound.plugin)
    prepared = operation.pre_process(Request(texts=["a", "b"]))
    assert prepared == Prepared(["a", "b"])
    assert operation.post_process(prepared, OUTPUTS) == Response(lengths=[3, 4])


def test_the_processor_is_given_its_context(site: Site):
    bound = bind(site, "class NERProcessor(Processor): pass\n", {"threshold": "0.4"})
    context = bound.operations["measure"].processor.context
    assert (context.task, context.operation, context.model.name) == (
        bound.task,
        bound.task.operations[0],
        "BAAI/bge-small-en-v1.5",
    )
    assert context.settings is bound.settings
    assert bound.settings.model_dump() == {"threshold": 0.4, "labels": []}


def test_a_hook_may_take_fewer_arguments_and_be_marked_and_the_rest_of_a_processor_is_left_alone(site: Site):
    operation = bind(
        site,
        "class NERProcessor(Processor):\n"
        "    @property\n"
        "    def costly(self): raise RuntimeError('touched')\n"
        "    @hookimpl(tryfirst=True)\n"
        "    def pre_process(self, request, limit=3): return Prepared(['x'] * limit)\n"
        "    def post_process(self, outputs): return Response(lengths=[7])\n",
    ).operations["measure"]
    assert operation.pre_process(Request(texts=[])) == Prepared(["x"] * 3)
    assert post_process(operation) == Response(lengths=[7])


def test_one_processor_serves_many_threads(site: Site):
    operation = bind_hook(site, pre_process="return Prepared(request.texts, state=request)")
    requests = [Request(texts=[str(number)]) for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert [prepared.state for prepared in pool.map(operation.pre_process, requests)] == requests


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"treshold": 1}, "treshold: no such setting. Did you mean 'threshold'? Settings: labels, threshold."),
        ({"threshold": "high"}, "threshold must be a number, got 'high'."),
    ],
)
def test_a_wrong_setting(site: Site, settings: dict[str, object], problem: str):
    descriptor = DESCRIPTOR.replace("TREE", "_")
    with pytest.raises(PluginConfigError) as caught:
        bind(site, "class NERProcessor(Processor): pass\n", settings, descriptor=descriptor)
    assert caught.value.plugin == "poolkit-gliner"
    assert str(caught.value) == f"[plugins.poolkit-gliner] {problem}"


def test_all_wrong_settings_are_reported_together(site: Site):
    descriptor = DESCRIPTOR.replace("TREE", "_")
    with pytest.raises(StartupError) as caught:
        bind(site, "", {"treshold": 1, "threshold": "high"}, descriptor=descriptor)
    assert str(caught.value) == (
        "PluginConfigError: [plugins.poolkit-gliner] treshold: no such setting. Did you mean 'threshold'? "
        "Settings: labels, threshold.\n"
        "PluginConfigError: [plugins.poolkit-gliner] threshold must be a number, got 'high'."
    )


def test_the_tasks_of_a_plugin_share_its_table(site: Site):
    bound = bind(site, "class NERProcessor(Processor): pass\n", {"threshold": 0.1, "depth": 4})
    assert bound.settings.model_dump() == {"threshold": 0.1, "labels": []}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "def pre_process(self, request, ctx): ...",
            "NERProcessor.pre_process takes 'ctx'; the hook provides (request).",
        ),
        (
            "def post_process(self, prepared, *outputs): ...",
            "NERProcessor.post_process must take 'outputs' as a plain argument: not keyword-only, no default.",
        ),
        (
            "def pre_process(self, *args): ...",
            "NERProcessor.pre_process takes '*args'; the hook provides (request).",
        ),
        (
            "def post_process(self, prepared, **rest): ...",
            "NERProcessor.post_process takes '**rest'; the hook provides (prepared, outputs).",
        ),
        (
            "def pre_process(self, request=None): ...",
            "NERProcessor.pre_process must take 'request' as a plain argument: not keyword-only, no default.",
        ),
        (
            "def pre_process(self, *, request): ...",
            "NERProcessor.pre_process must take 'request' as a plain argument: not keyword-only, no default.",
        ),
        (
            "async def pre_process(self, request): ...",
            "NERProcessor.pre_process is async; hooks are called from plain threads. Write it with a plain def.",
        ),
        (
            "pre_process = staticmethod(len)",
            "NERProcessor.pre_process is a staticmethod. Write it as a method: def pre_process(self, request).",
        ),
    ],
)
def test_a_hook_with_another_signature(site: Site, body: str, problem: str):
    with pytest.raises(PluginInvalidError) as caught:
        bind(site, f"class NERProcessor(Processor):\n    {body}\n")
    assert str(caught.value) == f"poolkit-gliner 0.3.1: {problem}"


def test_a_processor_without_a_hook(site: Site):
    source = "class NERProcessor(PoolingIOProcessor):\n    def pre_process(self, request): ...\n"
    with pytest.raises(PluginInvalidError) as caught:
        bind(site, source)
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1: NERProcessor does not define post_process(self, prepared, outputs)."
    )


def test_a_processor_that_is_none(site: Site):
    with pytest.raises(PluginInvalidError) as caught:
        bind(site, "class NERProcessor: ...\n")
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1: gliner_processors:NERProcessor is not a class derived from PoolingIOProcessor."
    )


def test_a_processor_that_cannot_be_imported(site: Site):
    with pytest.raises(PluginLoadError) as caught:
        bind(site, "")
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1 failed to import: "
        "AttributeError: module 'gliner_processors' has no attribute 'NERProcessor'\n"
        "  processor    gliner_processors:NERProcessor\n"
        "  enabled by   --plugin poolkit-gliner"
    )


def test_a_processor_that_cannot_be_created(site: Site):
    with pytest.raises(PluginLoadError) as caught:
        bind(site, "class NERProcessor(Processor):\n    def __init__(self, context): sys.exit('no licence')\n")
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1 failed to create NERProcessor: SystemExit: no licence\n"
        "  processor    gliner_processors:NERProcessor\n"
        f"  raised at    {site.path / 'gliner_processors.py'}:7\n"
        "  enabled by   --plugin poolkit-gliner"
    )


def test_when_one_processor_fails_the_others_are_closed_and_all_failures_reported(
    site: Site, caplog: pytest.LogCaptureFixture
):
    descriptor = (
        "from dataclasses import replace\nfrom distributions import make_task\n"
        "[operation] = make_task('ner').operations\n"
        "NER = make_task('ner', operations=tuple(\n"
        "    replace(operation, name=name.lower(), io_processor='gliner_processors:' + name)\n"
        "    for name in ('Good', 'Absent', 'Wrong')\n"
        "))\n"
    )
    source = "class Good(Processor):\n    def close(self): raise OSError('closed badly')\nWrong = 3\n"
    with pytest.raises(StartupError) as caught:
        bind(site, source, descriptor=descriptor)
    assert [type(error) for error in caught.value.errors] == [PluginLoadError, PluginInvalidError]
    assert caplog.messages == ["Task 'ner' of poolkit-gliner 0.3.1 failed in close."]


def test_closing_a_task_closes_its_processors(site: Site):
    bound = bind(site, "closed = []\nclass NERProcessor(Processor):\n    def close(self): closed.append(self)\n")
    processor = bound.operations["measure"].processor
    bound.close()
    assert type(processor).close.__globals__["closed"] == [processor]


@pytest.mark.usefixtures("site")
def test_a_task_of_somewhere_else_cannot_be_bound():
    with pytest.raises(UnknownTaskError) as caught:
        Registry.load(PluginConfig()).bind(make_task("ner"), make_model(), fake_encoder())
    assert str(caught.value) == "task 'ner' is not one of the enabled tasks' descriptors."


@pytest.mark.parametrize(("hook", "call"), [("pre_process", pre_process), ("post_process", post_process)])
@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ("raise RequestError('Too many labels.')", "Too many labels.", None),
        ("raise RequestError('No such label.', param='labels')", "No such label.", "labels"),
        ("Request(texts='a', x=1)", "texts: Input should be a valid list; x: Extra inputs are not permitted", "texts"),
    ],
)
def test_what_a_hook_blames_on_the_request_is_passed_on(
    site: Site, hook: str, call: Callable[[BoundOperation], object], body: str, message: str, param: str | None
):
    operation = bind_hook(site, **{hook: body})
    with pytest.raises(RequestError) as caught:
        call(operation)
    assert (type(caught.value), str(caught.value), caught.value.param) == (RequestError, message, param)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise KeyError('secret')", KeyError("secret")),
        ("int('secret')", ValueError("invalid literal for int() with base 10: 'secret'")),
        ("sys.exit(1)", SystemExit(1)),
        ("return None", TypeError("returned NoneType, not Prepared")),
        ("return request.texts", TypeError("returned list, not Prepared")),
        ("return Prepared('a')", TypeError("Prepared.prompts is a str, not a sequence of prompts")),
        ("return Prepared(None)", TypeError("Prepared.prompts is a NoneType, not a sequence of prompts")),
        ("return Prepared(b'a')", TypeError("Prepared.prompts is a bytes, not a sequence of prompts")),
        ("return Prepared([b'12'])", TypeError("Prepared.prompts[0] is a bytes, not a text, a pair or token ids")),
        (
            "return Prepared(['a'], params=None)",
            TypeError("Prepared.params is a NoneType, not PoolingParams or a sequence of it"),
        ),
        ("return Prepared(['a', 'b'], [PoolingParams()])", TypeError("Prepared has 2 prompts and 1 params")),
        ("return Prepared(['a', 'b'], groups=[1])", TypeError("Prepared has 2 prompts and 1 groups")),
        ("return Prepared(['a'], groups={1})", TypeError("Prepared.groups is a set, not a sequence")),
        ("return Prepared(['a'], groups=[[1]])", TypeError("Prepared.groups[0] is a list, which cannot be hashed")),
        (
            "late = LateInteractionParams('score_doc', 'q'); "
            "return Prepared(['a'], PoolingParams(late_interaction=late), groups=[1])",
            TypeError("Prepared.groups[0] names a group for a prompt of late interaction, which has none"),
        ),
        ("return Prepared(['a', 'b'], origin=[0])", TypeError("Prepared has 2 prompts and 1 origin")),
        (
            "return Prepared(['a'], refused={1: RequestError('no')})",
            TypeError("Prepared.refused has the index 1, but there are 1 prompts"),
        ),
        (
            "return Prepared(['a'], refused={0: 'no'})",
            TypeError("Prepared.refused[0] is a str, not a RequestError"),
        ),
    ],
)
def test_any_other_failure_of_pre_process_is_the_plugins(
    site: Site, caplog: pytest.LogCaptureFixture, body: str, cause: BaseException
):
    assert_blamed(bind_hook(site, pre_process=body), "pre_process", pre_process, cause, caplog)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise KeyError('secret')", KeyError("secret")),
        ("raise ValueError('secret')", ValueError("secret")),
        ("raise StopIteration", StopIteration()),
        ("return None", TypeError("returned NoneType, not Response")),
        ("return {'lengths': []}", TypeError("returned dict, not Response")),
    ],
)
def test_any_other_failure_of_post_process_is_the_plugins(
    site: Site, caplog: pytest.LogCaptureFixture, body: str, cause: BaseException
):
    assert_blamed(bind_hook(site, post_process=body), "post_process", post_process, cause, caplog)


FINITE = """
import numpy as np
from pydantic import BaseModel, ConfigDict
from poolkit import Operation, Output, PoolingTask
class Score(BaseModel):
    label: str = "x"
    score: float = 1.0
class Scores(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")
    ids: list[int] = [1]
    array: np.ndarray = np.ones(2, np.float32)
    rows: list[list[float]] = [[1.0, 2.0]]
    scores: list[Score] = [Score()]
    table: dict[str, float | None] = {"x": None}
"""
FINITE_TASK = """
from distributions import Request, make_task
OPERATION = Operation(name="measure", request=Request, response=Scores, io_processor="gliner_processors:NERProcessor")
NER = make_task("ner", operations=(OPERATION,))
"""


@pytest.mark.parametrize(
    ("response", "place"),
    [
        ("array=np.array([1, np.nan], np.float32)", "array"),
        ("rows=[[1.0], [1.0, float('inf')]]", "rows[1][1]"),
        ("rows=[[1.0, float('inf'), -float('inf')]]", "rows[0][1]"),
        ("scores=[Score(), Score(score=float('nan'))]", "scores[1].score"),
        ("table={'x': 1.0, 'y': -float('inf')}", "table['y']"),
        ("more=[1.0, None, float('nan')]", "['more'][2]"),
    ],
)
def test_a_number_that_is_not_finite_is_the_plugins_failure_and_never_null(
    site: Site, caplog: pytest.LogCaptureFixture, response: str, place: str
):
    source = "from poolkit_gliner import *\nclass NERProcessor(Processor):\n"
    source += f"    def post_process(self, prepared, outputs): return Scores({response})\n"
    operation = bind(site, source, descriptor=FINITE + FINITE_TASK).operations["measure"]
    cause = ValueError(f"returned a response whose {place} is not finite")
    assert_blamed(operation, "post_process", post_process, cause, caplog)


def test_finite_numbers_of_every_size_are_passed_on(site: Site):
    source = "from poolkit_gliner import *\nclass NERProcessor(Processor):\n"
    source += "    def post_process(self, prepared, outputs): return Scores(rows=[[1e308, 1e308], [], [None or 0.0]])\n"
    operation = bind(site, source, descriptor=FINITE + FINITE_TASK).operations["measure"]
    assert post_process(operation).rows == [[1e308, 1e308], [], [0.0]]


def assert_blamed(
    operation: BoundOperation,
    hook: str,
    call: Callable[[BoundOperation], object],
    cause: BaseException,
    caplog: pytest.LogCaptureFixture,
) -> None:
    message = f"task 'ner' of poolkit-gliner 0.3.1 failed in {hook}."
    with pytest.raises(HookError) as caught:
        call(operation)
    assert str(caught.value) == message
    assert (caught.value.plugin, caught.value.task, caught.value.hook) == ("poolkit-gliner", "ner", hook)
    assert repr(caught.value.__cause__) == repr(cause)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, message)
    assert record.exc_info is not None
    assert record.exc_info[1] is caught.value.__cause__
