"""Many clients at once, clients that leave, and a server that is told to stop."""

import asyncio

import httpx
import pytest

from poolkit import create_app
from poolkit.server.drain import Drain
from serving import Caller, HeldBackbone, ask, fake_model


async def wait_for(condition) -> None:
    """Wait until a condition holds that another thread brings about; the test's own timeout is the limit."""
    while not condition():
        await asyncio.sleep(0.001)


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def test_two_hundred_clients_each_get_their_own_answer():
    async def main():
        async with client_of(app) as client:

            async def embed(token_id):
                response = await client.post("/v1/embeddings", json={"input": [token_id]})
                return response.json()["data"][0]["embedding"]

            token_ids = range(2, 202)
            alone = [await embed(token_id) for token_id in token_ids]
            together = await asyncio.gather(*(embed(token_id) for token_id in token_ids))
        assert together == alone
        assert len({tuple(vector) for vector in together}) == 200

    with fake_model() as served:
        app = create_app(served)
        asyncio.run(main())


def test_a_client_that_leaves_frees_its_place():
    async def main():
        first = asyncio.create_task(Caller(app, {"input": "held in the engine"}).call())
        await wait_for(engine.is_reached.is_set)
        leaver = Caller(app, {"input": ["gives up"] * 50})
        leaving = asyncio.create_task(leaver.call())
        await wait_for(lambda: served.stats().prompts_waiting == 51)
        leaver.has_left.set()
        await leaving
        await wait_for(lambda: served.stats().prompts_cancelled == 50)
        assert served.stats().prompts_waiting == 1
        engine.may_go.set()
        await first
        assert engine.prompts_run == 1
        metrics = (await client_of(app).get("/metrics")).text
        assert 'poolkit_requests_total{route="/v1/embeddings",status="499"} 1.0' in metrics

    held = []

    def hold(task):
        held.append(HeldBackbone(task))
        return held[0]

    with fake_model(backbone=hold) as served:
        [engine] = held
        app = create_app(served)
        asyncio.run(main())


def test_too_many_waiting_prompts_are_answered_429_with_a_time_to_retry():
    async def main():
        first = asyncio.create_task(Caller(app, {"input": ["a", "b"]}).call())
        await wait_for(engine.is_reached.is_set)
        async with client_of(app) as client:
            response = await client.post("/v1/embeddings", json={"input": "c"})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"] == {
            "message": "2 prompts are waiting already and at most 2 may. Try again in 1 s.",
            "type": "overloaded_error",
            "param": None,
            "code": "overloaded",
        }
        engine.may_go.set()
        await first

    held = []

    def hold(task):
        held.append(HeldBackbone(task))
        return held[0]

    with fake_model(backbone=hold, max_waiting_prompts=2) as served:
        [engine] = held
        app = create_app(served)
        asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "/nothing"])
def test_a_draining_server_refuses_new_requests(path):
    with fake_model() as served:
        drain = Drain()
        app = create_app(served, drain=drain)
        assert ask(app, "POST", "/v1/embeddings", json={"input": "a"}).status_code == 200
        drain.begin()
        response = ask(app, "POST", path, json={"input": "a"})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"] == {
            "message": "The server is shutting down and takes no new requests.",
            "type": "unavailable_error",
            "param": None,
            "code": "shutting_down",
        }
        statuses = {probe: ask(app, "GET", probe).status_code for probe in ("/livez", "/readyz", "/health", "/metrics")}
        assert statuses == {"/livez": 200, "/readyz": 503, "/health": 503, "/metrics": 200}
