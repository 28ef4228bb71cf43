"""The queue of keys: each once, one worker a key, a back-off for what fails."""

from __future__ import annotations

import asyncio

from ring_operator.handlers.queue import Key, Queue

A, B = ("team", "a"), ("team", "b")


async def taken(queue: Queue, seconds: float = 0.5) -> Key | None:
    try:
        return await asyncio.wait_for(queue.take(), seconds)
    except TimeoutError:
        return None


def test_a_key_that_is_added_twice_is_due_once_at_the_earlier_time() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add(A, 30.0)
        queue.add(A, 0.0)
        queue.add(A, 20.0)
        assert await taken(queue) == A
        queue.done(A)
        assert await taken(queue, 0.05) is None
        assert len(queue) == 0

    asyncio.run(body())


def test_a_key_that_a_worker_has_is_due_again_when_it_is_given_back() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add(A, 0.0)
        assert await taken(queue) == A
        queue.add(A, 0.0)
        queue.add(B, 0.0)
        assert await taken(queue) == B
        assert await taken(queue, 0.05) is None
        queue.done(A)
        assert await taken(queue) == A

    asyncio.run(body())


def test_a_waiting_worker_wakes_for_a_key_that_is_due_earlier_than_others() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add(A, 60.0)
        worker = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(B, 0.0)
        assert await asyncio.wait_for(worker, 5) == B

    asyncio.run(body())


def test_failures_wait_longer_each_time_until_one_look_succeeds() -> None:
    queue = Queue()
    waits = [queue.failed(A) for _ in range(12)]
    assert waits[:4] == [0.25, 0.5, 1.0, 2.0]
    assert waits[-1] == 60.0
    assert queue.failed(A, at_least=90.0) == 90.0
    queue.succeeded(A)
    assert queue.failed(A) == 0.25


def test_a_forgotten_key_is_not_due() -> None:
    async def body() -> None:
        queue = Queue()
        queue.add(A, 0.0)
        queue.forget(A)
        assert await taken(queue, 0.05) is None
        assert queue.age == 0.0

    asyncio.run(body())
