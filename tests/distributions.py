"""Fake distributions for tests of the plugin layer: real dist-info folders and modules, in a folder on sys.path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import importlib_metadata
import pytest
from pydantic import BaseModel, ConfigDict

from engines import make_encoder
from poolkit.contract import (
    Backbone,
    ModelInfo,
    Operation,
    Output,
    PooledOutput,
    PoolingIOProcessor,
    PoolingTask,
    Prepared,
    TextSpec,
    Tokenizer,
    VectorSpec,
)
from poolkit.testing import FakeTokenizer
from poolkit.tokenization import Encoder

CORE = """
from distributions import make_task
EMBED = make_task("embed")
TOKEN_EMBED = make_task("token_embed", output="token_vectors")
CLASSIFY = make_task("classify", output="logits", operation="rerank")
REWARD = make_task("reward", output="logits")
TOKEN_CLASSIFY = make_task("token_classify", output="token_logits")
"""
CORE_DIALECTS = {
    "jina": "poolkit.dialects.rerank:RERANK",
    "openai": "poolkit.dialects.openai:EMBEDDINGS",
    "vllm": "poolkit.dialects.vllm:DIALECTS",
}
CORE_TASKS = ("embed", "token_embed", "classify", "reward", "token_classify")


@dataclass(frozen=True)
class Site:
    """A folder like site-packages."""

    path: Path

    def install(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        modules: Mapping[str, str] | None = None,
        tasks: Mapping[str, str] | None = None,
        hooks: Mapping[str, str] | None = None,
        engines: Mapping[str, str] | None = None,
        models: Mapping[str, str] | None = None,
        dialects: Mapping[str, str] | None = None,
        modalities: Mapping[str, str] | None = None,
        requires: Sequence[str] = (),
    ) -> None:
        """Write a distribution: its modules by file name without `.py`, and its entry points by group."""
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        files = {self.path / f"{module}.py": source for module, source in (modules or {}).items()}
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        files[info / "METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        groups = {
            "poolkit.tasks": tasks,
            "poolkit.plugins": hooks,
            "poolkit.engines": engines,
            "poolkit.models": models,
            "poolkit.dialects": dialects,
            "poolkit.modalities": modalities,
        }
        lines = []
        for group, entries in groups.items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in (entries or {}).items())]
        files[info / "entry_points.txt"] = "\n".join(lines)
        for file, text in files.items():
            file.write_text(text)
        (info / "RECORD").write_text("".join(f"{file.relative_to(self.path)},,\n" for file in files))

    def install_task(self, name: str, version: str, task: str) -> None:
        """Write a distribution with one task, made by `make_task`, in a module named after the distribution."""
        module = name.replace("-", "_")
        self.install(
            name,
            version,
            modules={module: f"from distributions import make_task\n{task.upper()} = make_task({task!r})\n"},
            tasks={task: f"{module}:{task.upper()}"},
        )


@contextmanager
def open_site(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, dialects: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """Put a new folder first on sys.path, with a poolkit 0.1.0 of five tasks that stands before the real one.

    It has no dialects unless it is given some.

    Other plugins that happen to be installed are hidden behind empty distributions of their names. What was imported
    from the folder is forgotten at the end.
    """
    others = {entry.dist.name for entry in importlib_metadata.entry_points() if entry.group.startswith("poolkit.")}
    hidden = Site(path.with_name(f"{path.name}-hidden"))
    site = Site(path)
    for folder in (hidden.path, site.path):
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
    site.install(
        "poolkit",
        "0.1.0",
        modules={"fake_core": CORE},
        tasks={name: f"fake_core:{name.upper()}" for name in CORE_TASKS},
        engines={"torch": "distributions"},
        dialects=dialects,
    )
    for name in others - {"poolkit"}:
        hidden.install(name)
    try:
        yield site
    finally:
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(path):
                del sys.modules[name]


class Request(BaseModel):
    """The request of the operations that `make_task` makes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": ["a", "b"]}]})

    texts: list[str]


class Response(BaseModel):
    """Their response: the length of each output."""

    lengths: list[int]


class Processor(PoolingIOProcessor[Request, Response]):
    """Their processor."""

    def pre_process(self, request: Request) -> Prepared:
        return Prepared(request.texts)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> Response:  # noqa: ARG002
        return Response(lengths=[len(output.data) for output in outputs])


def make_task(
    name: str,
    *,
    output: str = "vector",
    operation: str = "measure",
    io_processor: str = "distributions:Processor",
    **fields: object,
) -> PoolingTask:
    """Return a task with one operation."""
    operations = (Operation(name=operation, request=Request, response=Response, io_processor=io_processor),)
    return PoolingTask(
        **{"name": name, "api": 1, "summary": "", "output": Output(output), "operations": operations, **fields}
    )


def make_model(*outputs: str, name: str = "BAAI/bge-small-en-v1.5") -> ModelInfo:
    """Return a model that produces these kinds of output."""
    return ModelInfo(
        name=name,
        path=Path(),
        architecture="BertModel",
        model_type="bert",
        outputs=tuple(Output(output) for output in outputs or ("vector", "token_vectors")),
        hidden_size=384,
        text=TextSpec(max_model_len=512, vocab_size=30522),
        vector=VectorSpec(size=384),
    )


def fake_encoder() -> Encoder:
    """Return an encoder for `make_model`."""
    return make_encoder(FakeTokenizer(), make_model())


def load_tokenizer(info: ModelInfo) -> Tokenizer:
    """With `load_backbone`, makes this module provide the engine of the poolkit that `open_site` installs."""
    raise NotImplementedError


def load_backbone(info: ModelInfo, *, taps: Sequence[int] = ()) -> Backbone | str:
    """Never called: these tests load no model."""
    raise NotImplementedError
