"""Images that belong together run in one batch, however many they are, with and without wrappers around the model."""

from __future__ import annotations

import sys

import pytest

from distributions import Site
from image_models import TOWERS, pictures
from poolkit.errors import RequestError

pytestmark = pytest.mark.usefixtures("one_thread")

ALBUM = '''
from dataclasses import replace

import torch
from poolkit import Operation, Output, PooledRows, PoolingProcessor, PoolingRequest, PoolingResponse, PoolingTask
from poolkit import hookimpl

class Album(PoolingProcessor):
    """Pools all prompts of a request together."""

    def pre_process(self, request):
        prepared = super().pre_process(request)
        return replace(prepared, groups=["album"] * len(prepared.prompts))

def create_head(context):
    return lambda states, batch: PooledRows(torch.tensor([[(batch.groups == one).sum()] for one in batch.groups]))

POOLING = Operation(
    name="pooling", request=PoolingRequest, response=PoolingResponse, io_processor="poolkit_album:Album"
)
ALBUM = PoolingTask(
    name="album", api=1, summary="How many prompts run together.", output=Output.VECTOR,
    head="poolkit_album:create_head", operations=(POOLING,),
)

class PassOn:
    def run(self, encoded):
        return (yield encoded)

@hookimpl
def poolkit_wrap(context, settings):
    return [PassOn()]
'''


@pytest.fixture
def album(tmp_path, monkeypatch, load):
    """Return a function that loads a model for the task, which hook modules may surround."""
    monkeypatch.syspath_prepend(tmp_path)

    def load_album(hooks: dict[str, str]):
        Site(tmp_path).install(
            "poolkit-album", modules={"poolkit_album": ALBUM}, tasks={"album": "poolkit_album:ALBUM"}, hooks=hooks
        )
        return load(next(iter(TOWERS)), task="album", enable=["poolkit-album"])

    yield load_album
    sys.modules.pop("poolkit_album", None)


@pytest.mark.parametrize("hooks", [{}, {"album": "poolkit_album"}], ids=["alone", "inside a wrapper"])
def test_the_images_of_a_group_run_in_one_batch(album, hooks):
    images = pictures() * 5
    outputs = album(hooks).encode(images, use_tqdm=False)
    assert len(images) > 16
    assert [output.outputs.data.tolist() for output in outputs] == [[len(images)]] * len(images)


def test_a_group_of_images_and_texts_is_refused(album):
    with pytest.raises(RequestError) as caught:
        album({}).encode([*pictures(), "a text"], use_tqdm=False)
    assert str(caught.value) == (
        "Prompts of image and of text belong together (group 'album'), and only those of one kind run in one batch. "
        "Send each kind by itself."
    )
