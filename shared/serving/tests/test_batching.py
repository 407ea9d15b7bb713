"""Requests that come together are answered together; each hears its own answer, and nobody waits for who has left."""

import asyncio
import contextlib

import pytest

from shared.serving.batching import Batcher
from shared.serving.metrics import Metrics
from shared.serving.problems import Problem
from shared.serving.served_model import Message, Request
from shared.serving.settings import Settings


def request(text: str, tokens: int = 50) -> Request:
    return Request((Message("user", text),), max_new_tokens=tokens)


@contextlib.asynccontextmanager
async def batcher(speaker, **settings):
    made = Batcher(speaker, Settings(**{"gather_seconds": 0.0} | settings), Metrics())
    try:
        yield made
    finally:
        speaker.go.set()
        made.stop()
        assert not made._thread.is_alive()


async def listen(to: Batcher, text: str, tokens: int = 50) -> str:
    async with contextlib.aclosing(to.stream(request(text, tokens))) as texts:
        return "".join([text async for text in texts])


async def until(true) -> None:
    """Wait for the other thread."""
    while not true():
        await asyncio.sleep(0.001)


async def hold(to: Batcher, speaker) -> asyncio.Task:
    """A batch of one that is under way, and stands still."""
    speaker.go.clear()
    first = asyncio.create_task(listen(to, "first"))
    await until(lambda: speaker.steps == 1)
    return first


async def problem_of(asking) -> Problem:
    with pytest.raises(Problem) as caught:
        await asking
    return caught.value


def test_what_comes_together_is_answered_together_and_apart(parrot):
    async def main():
        async with batcher(parrot, rows=4) as to:
            first = await hold(to, parrot)
            others = [asyncio.create_task(listen(to, f"row {n} " + "more " * n, 3 + n)) for n in range(6)]
            await until(lambda: len(to._waiting) == 6)
            parrot.go.set()
            assert await first == "user: first "
            expected = [" ".join(f"user: row {n} {'more ' * n}".split()[: 3 + n]) + " " for n in range(6)]
            assert await asyncio.gather(*others) == expected
        assert parrot.batches == [1, 4, 2]

    asyncio.run(main())


def test_the_first_waits_a_moment_for_others(parrot):
    async def main():
        async with batcher(parrot, rows=3, gather_seconds=60) as to:
            # A full batch does not wait: this test would take a minute.
            answers = await asyncio.gather(*(listen(to, text) for text in "abc"))
            assert answers == ["user: a ", "user: b ", "user: c "]
        assert parrot.batches == [3]

    asyncio.run(main())


def test_a_row_that_has_ended_does_not_wait_for_the_others(parrot):
    async def main():
        async with batcher(parrot, rows=2, gather_seconds=60) as to:
            long = asyncio.create_task(listen(to, "one two three"))
            parrot.go.clear()
            short = to.stream(request("x", 1))
            heard = asyncio.create_task(anext(short))
            await until(lambda: parrot.steps == 1)
            parrot.go.set()
            assert await heard == "user: "
            with pytest.raises(StopAsyncIteration):
                await anext(short)
            assert await long == "user: one two three "

    asyncio.run(main())


def test_the_queue_is_bounded(parrot):
    async def main():
        async with batcher(parrot, rows=1, waiting=2) as to:
            first = await hold(to, parrot)
            waiting = [asyncio.create_task(listen(to, text)) for text in "ab"]
            await until(lambda: len(to._waiting) == 2)
            refused = await problem_of(listen(to, "c"))
            assert (refused.status, refused.code) == (429, "too_many_requests")
            # Who leaves the queue makes room at once.
            waiting[0].cancel()
            await asyncio.gather(waiting[0], return_exceptions=True)
            waiting.append(asyncio.create_task(listen(to, "d")))
            await until(lambda: len(to._waiting) == 2)
            parrot.go.set()
            assert await asyncio.gather(first, *waiting[1:]) == ["user: first ", "user: b ", "user: d "]
        assert parrot.batches == [1, 1, 1]

    asyncio.run(main())


def test_who_leaves_is_not_answered_and_a_batch_nobody_waits_for_is_broken_off(parrot):
    async def main():
        async with batcher(parrot, rows=2, gather_seconds=60) as to:
            parrot.go.clear()
            leaving, staying = (asyncio.create_task(listen(to, f"{name} " + "word " * 30)) for name in ("a", "b"))
            await until(lambda: parrot.steps == 1)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            parrot.go.set()
            assert await staying == "user: b " + "word " * 30
            assert parrot.closed == 0
        async with batcher(parrot) as to:
            parrot.steps = 0
            alone = await hold(to, parrot)
            alone.cancel()
            await asyncio.gather(alone, return_exceptions=True)
            parrot.go.set()
            await until(lambda: parrot.closed == 1)
            assert await listen(to, "next") == "user: next "

    asyncio.run(main())


def test_time_runs_out_in_the_queue_and_in_the_answer(parrot):
    async def main():
        async with batcher(parrot, rows=1, seconds=2.0) as to:
            answered = await hold(to, parrot)
            queued = await problem_of(listen(to, "queued"))
            assert (queued.status, queued.code) == (504, "too_slow")
            assert (await problem_of(answered)).status == 504
            await until(lambda: to.stalled)
            parrot.go.set()
            await until(lambda: not to.stalled)
        assert parrot.batches == [1]  # nobody waited for the second any more

    asyncio.run(main())


def test_one_bad_request_fails_alone(parrot, caplog):
    async def main():
        async with batcher(parrot, rows=3, gather_seconds=60) as to:
            asking = [asyncio.create_task(listen(to, text)) for text in ("good", "poison", "fine")]
            await asyncio.wait(asking)
            assert asking[0].result() == "user: good " and asking[2].result() == "user: fine "
            failed = asking[1].exception()
        assert (failed.status, failed.code) == (503, "model_failed") and "secret" not in failed.message
        assert "secret" in caplog.text
        assert parrot.batches == [3, 1, 1, 1]

    asyncio.run(main())


def test_who_has_heard_something_is_not_told_it_twice(parrot, caplog):
    async def main():
        async with batcher(parrot, rows=2, gather_seconds=60) as to:
            asking = [asyncio.create_task(listen(to, text)) for text in ("choke on it", "two words")]
            await asyncio.wait(asking)
            assert [task.exception().code for task in asking] == ["model_failed"] * 2
        assert parrot.batches == [2]

    asyncio.run(main())


def test_a_speaker_that_forgets_a_row_is_a_fault_of_the_model(parrot, caplog):
    async def main():
        parrot.speak = lambda requests: iter([["only one "] * (len(requests) - 1)])
        async with batcher(parrot, rows=2, gather_seconds=60) as to:
            failed = await asyncio.gather(listen(to, "a"), listen(to, "b"), return_exceptions=True)
        assert [problem.code for problem in failed] == ["model_failed"] * 2

    asyncio.run(main())


def test_an_answer_may_be_empty_and_a_list_of_steps_will_do(parrot):
    async def main():
        parrot.speak = lambda requests: [["a"] * len(requests), [""] * len(requests), ["b"] * len(requests)]
        async with batcher(parrot) as to:
            assert await listen(to, "x") == "ab"
            parrot.speak = lambda requests: []
            assert await listen(to, "x") == ""

    asyncio.run(main())


def test_stopping_ends_everything(parrot):
    async def main():
        async with batcher(parrot, rows=1) as to:
            first = await hold(to, parrot)
            queued = asyncio.create_task(listen(to, "queued"))
            await until(lambda: len(to._waiting) == 1)
            stopping = asyncio.create_task(asyncio.to_thread(to.stop))
            await until(lambda: to._stopping)
            parrot.go.set()
            for asking in (first, queued, listen(to, "late")):
                assert (await problem_of(asking)).code == "stopping"
            await stopping

    asyncio.run(main())
