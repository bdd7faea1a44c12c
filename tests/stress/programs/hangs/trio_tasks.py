"""Trio programs that hang: `trio_tasks.py SHAPE`. The line where each hangs ends with its name."""

import sys
import threading
import time

import trio

import otel_progress as progress


async def poll():
    while True:
        await trio.sleep(0.01)


async def quick():
    await trio.lowlevel.checkpoint()


async def forever():
    await trio.sleep_forever()  # forever


async def nursery():
    async def ask():
        await trio.Event().wait()  # nursery

    async with trio.open_nursery() as nursery:
        for each in (poll, quick, ask, poll):
            nursery.start_soon(each)


async def nested_nurseries():
    async def ask():
        await trio.Event().wait()  # nested_nurseries

    async def half(*parts):
        async with trio.open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(part)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(half, poll, quick)
        nursery.start_soon(half, quick, ask)


async def in_the_body():
    """A task in the body of a nursery hangs at its own line, whatever the children do."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await trio.Event().wait()  # in_the_body


async def started():
    async def serve(task_status=trio.TASK_STATUS_IGNORED):
        await trio.Event().wait()  # started
        task_status.started()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        await nursery.start(serve)


async def channel():
    send, receive = trio.open_memory_channel(0)
    async with send, receive:
        await receive.receive()  # channel


async def tracked_generator():
    async def pages():
        yield 1
        await trio.Event().wait()  # tracked_generator

    async for _ in progress.track(pages()):
        pass


async def lock_held():
    lock = trio.Lock()
    held = trio.Event()

    async def holds():
        async with lock:
            held.set()
            await trio.Event().wait()  # lock_holder

    async with trio.open_nursery() as nursery:
        nursery.start_soon(holds)
        await held.wait()
        async with lock:  # lock_held
            pass


async def timeout():
    with trio.fail_after(1000):
        await trio.Event().wait()  # timeout


async def to_thread():
    def work():
        threading.Event().wait()  # to_thread

    await trio.to_thread.run_sync(work)


async def from_thread():
    async def ask():
        await trio.Event().wait()  # from_thread

    def work():
        with progress.operation("thread"):
            trio.from_thread.run(ask)

    await trio.to_thread.run_sync(work)


async def blocked():
    def tool():
        time.sleep(10000)  # blocked

    async def call():
        await trio.sleep(0)
        tool()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        nursery.start_soon(call)


async def blocked_by_another():
    async def other():
        await trio.sleep(0.01)
        time.sleep(10000)  # blocked_by_another

    async def mine():
        with progress.operation("mine"):
            await poll()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mine)
        nursery.start_soon(other)


async def subprocess():
    await trio.run_process([sys.executable, "-c", "import time; time.sleep(10000)"])  # subprocess


async def socket():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with await trio.open_tcp_stream(*listeners[0].socket.getsockname()) as stream:
        await stream.receive_some()  # socket


async def two():
    async def one():
        with progress.operation("one"):
            await trio.Event().wait()  # two one

    async def other():
        with progress.operation("other"):
            await trio.sleep_forever()  # two other

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(other)


async def main(work):
    if sys.argv[1] in {"two", "blocked_by_another"}:
        await work()
    else:
        with progress.operation("job"):
            await work()


if sys.argv[1] == "outside":
    with progress.operation("job"):
        trio.run(forever)
else:
    trio.run(main, globals()[sys.argv[1]])
