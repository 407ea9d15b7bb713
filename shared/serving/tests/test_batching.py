"""Requests that arrive together are answered together, each with its own answer, and abandoned rows cost no time."""

import asyncio
import contextlib

import pytest

from shared.serving.batching import Batcher
from shared.serving.errors import ServiceError
from shared.serving.metrics import Metrics
from shared.serving.served_model import GenerationRequest, Message
from shared.serving.settings import Settings


def request(text: str, tokens: int = 50) -> GenerationRequest:
    return GenerationRequest((Message("user", text),), max_new_tokens=tokens)


@contextlib.asynccontextmanager
async def run_batcher(model, **settings):
    batcher = Batcher(model, Settings(**{"batch_wait": 0.0} | settings), Metrics())
    try:
        yield batcher
    finally:
        model.go.set()
        batcher.stop()
        assert not batcher._thread.is_alive()


async def collect(batcher: Batcher, text: str, tokens: int = 50) -> str:
    async with contextlib.aclosing(batcher.stream(request(text, tokens))) as texts:
        return "".join([text async for text in texts])


async def wait_until(condition) -> None:
    """Wait for the thread of the batcher."""
    while not condition():
        await asyncio.sleep(0.001)


async def start_and_pause(batcher: Batcher, model) -> asyncio.Task:
    """Start a batch of one request and pause the model at its first step."""
    model.go.clear()
    first = asyncio.create_task(collect(batcher, "first"))
    await wait_until(lambda: model.steps == 1)
    return first


async def error_of(answer) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await answer
    return caught.value


def test_requests_of_a_batch_get_their_own_answers(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=4) as batcher:
            first = await start_and_pause(batcher, echo_model)
            others = [asyncio.create_task(collect(batcher, f"row {n} " + "more " * n, 3 + n)) for n in range(6)]
            await wait_until(lambda: len(batcher._waiting) == 6)
            echo_model.go.set()
            assert await first == "user: first "
            expected = [" ".join(f"user: row {n} {'more ' * n}".split()[: 3 + n]) + " " for n in range(6)]
            assert await asyncio.gather(*others) == expected
        assert echo_model.batches == [1, 4, 2]

    asyncio.run(main())


def test_the_first_request_waits_for_others(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=3, batch_wait=60) as batcher:
            # A full batch does not wait: this test would take a minute.
            answers = await asyncio.gather(*(collect(batcher, text) for text in "abc"))
            assert answers == ["user: a ", "user: b ", "user: c "]
        assert echo_model.batches == [3]

    asyncio.run(main())


def test_a_short_answer_does_not_wait_for_the_long_ones(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=2, batch_wait=60) as batcher:
            long = asyncio.create_task(collect(batcher, "one two three"))
            echo_model.go.clear()
            short = batcher.stream(request("x", 1))
            first_text = asyncio.create_task(anext(short))
            await wait_until(lambda: echo_model.steps == 1)
            echo_model.go.set()
            assert await first_text == "user: "
            with pytest.raises(StopAsyncIteration):
                await anext(short)
            assert await long == "user: one two three "

    asyncio.run(main())


def test_the_queue_is_limited(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=1, max_waiting=2) as batcher:
            first = await start_and_pause(batcher, echo_model)
            waiting = [asyncio.create_task(collect(batcher, text)) for text in "ab"]
            await wait_until(lambda: len(batcher._waiting) == 2)
            refused = await error_of(collect(batcher, "c"))
            assert (refused.status, refused.code) == (429, "too_many_requests")
            # A request that leaves the queue frees its place at once.
            waiting[0].cancel()
            await asyncio.gather(waiting[0], return_exceptions=True)
            waiting.append(asyncio.create_task(collect(batcher, "d")))
            await wait_until(lambda: len(batcher._waiting) == 2)
            echo_model.go.set()
            assert await asyncio.gather(first, *waiting[1:]) == ["user: first ", "user: b ", "user: d "]
        assert echo_model.batches == [1, 1, 1]

    asyncio.run(main())


def test_abandoned_rows_are_not_answered_and_an_abandoned_batch_is_stopped(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=2, batch_wait=60) as batcher:
            echo_model.go.clear()
            leaving, staying = (asyncio.create_task(collect(batcher, f"{name} " + "word " * 30)) for name in ("a", "b"))
            await wait_until(lambda: echo_model.steps == 1)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            echo_model.go.set()
            assert await staying == "user: b " + "word " * 30
            assert echo_model.closed == 0
        async with run_batcher(echo_model) as batcher:
            echo_model.steps = 0
            alone = await start_and_pause(batcher, echo_model)
            alone.cancel()
            await asyncio.gather(alone, return_exceptions=True)
            echo_model.go.set()
            await wait_until(lambda: echo_model.closed == 1)
            assert await collect(batcher, "next") == "user: next "

    asyncio.run(main())


def test_the_time_limit_holds_in_the_queue_and_during_the_answer(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=1, answer_timeout=2.0) as batcher:
            answered = await start_and_pause(batcher, echo_model)
            queued = await error_of(collect(batcher, "queued"))
            assert (queued.status, queued.code) == (504, "too_slow")
            assert (await error_of(answered)).status == 504
            await wait_until(lambda: batcher.stalled)
            echo_model.go.set()
            await wait_until(lambda: not batcher.stalled)
        assert echo_model.batches == [1]  # the second was abandoned in the queue

    asyncio.run(main())


def test_one_bad_request_fails_alone(echo_model, caplog):
    async def main():
        async with run_batcher(echo_model, max_batch_size=3, batch_wait=60) as batcher:
            answers = [asyncio.create_task(collect(batcher, text)) for text in ("good", "poison", "fine")]
            await asyncio.wait(answers)
            assert answers[0].result() == "user: good " and answers[2].result() == "user: fine "
            failed = answers[1].exception()
        assert (failed.status, failed.code) == (503, "model_failed") and "secret" not in failed.message
        assert "secret" in caplog.text
        assert echo_model.batches == [3, 1, 1, 1]

    asyncio.run(main())


def test_a_row_with_some_text_is_not_answered_again(echo_model, caplog):
    async def main():
        async with run_batcher(echo_model, max_batch_size=2, batch_wait=60) as batcher:
            answers = [asyncio.create_task(collect(batcher, text)) for text in ("choke on it", "two words")]
            await asyncio.wait(answers)
            assert [task.exception().code for task in answers] == ["model_failed"] * 2
        assert echo_model.batches == [2]

    asyncio.run(main())


def test_a_missing_row_is_a_fault_of_the_model(echo_model, caplog):
    async def main():
        echo_model.generate = lambda requests: iter([["only one "] * (len(requests) - 1)])
        async with run_batcher(echo_model, max_batch_size=2, batch_wait=60) as batcher:
            failed = await asyncio.gather(collect(batcher, "a"), collect(batcher, "b"), return_exceptions=True)
        assert [error.code for error in failed] == ["model_failed"] * 2

    asyncio.run(main())


def test_an_answer_may_be_empty_and_steps_may_be_a_list(echo_model):
    async def main():
        echo_model.generate = lambda requests: [["a"] * len(requests), [""] * len(requests), ["b"] * len(requests)]
        async with run_batcher(echo_model) as batcher:
            assert await collect(batcher, "x") == "ab"
            echo_model.generate = lambda requests: []
            assert await collect(batcher, "x") == ""

    asyncio.run(main())


def test_stopping_ends_everything(echo_model):
    async def main():
        async with run_batcher(echo_model, max_batch_size=1) as batcher:
            first = await start_and_pause(batcher, echo_model)
            queued = asyncio.create_task(collect(batcher, "queued"))
            await wait_until(lambda: len(batcher._waiting) == 1)
            stopping = asyncio.create_task(asyncio.to_thread(batcher.stop))
            await wait_until(lambda: batcher._stopping)
            echo_model.go.set()
            for answer in (first, queued, collect(batcher, "late")):
                assert (await error_of(answer)).code == "stopping"
            await stopping

    asyncio.run(main())
