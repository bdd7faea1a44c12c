"""AnyIO programs that hang: `anyio_tasks.py SHAPE BACKEND`. The line where each hangs ends with its name."""

import sys
import threading
import time

import anyio
import anyio.from_thread
import anyio.to_thread

import otel_progress as progress


async def poll():
    while True:
        await anyio.sleep(0.01)


async def quick():
    await anyio.lowlevel.checkpoint()


async def forever():
    await anyio.sleep_forever()  # forever


async def task_group():
    async def ask():
        await anyio.Event().wait()  # task_group

    async with anyio.create_task_group() as group:
        for each in (poll, quick, ask, poll):
            group.start_soon(each)


async def in_the_body():
    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await anyio.Event().wait()  # in_the_body


async def started():
    async def serve(*, task_status):
        await anyio.Event().wait()  # started
        task_status.started()

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        await group.start(serve)


async def to_thread():
    def work():
        threading.Event().wait()  # to_thread

    await anyio.to_thread.run_sync(work)


async def threads():
    """One of several in threads."""

    def work(number):
        if number == 3:
            threading.Event().wait()  # threads

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(anyio.to_thread.run_sync, work, number)


async def from_thread():
    async def ask():
        await anyio.Event().wait()  # from_thread

    def work():
        with progress.operation("thread"):
            anyio.from_thread.run(ask)

    await anyio.to_thread.run_sync(work)


async def stream():
    send, receive = anyio.create_memory_object_stream(0)
    async with send, receive:
        await receive.receive()  # stream


async def socket():
    async def serve(client):
        await client.receive()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            await connection.receive()  # socket


async def timeout():
    with anyio.fail_after(1000):
        await anyio.Event().wait()  # timeout


async def lock_held():
    lock = anyio.Lock()
    held = anyio.Event()

    async def holds():
        async with lock:
            held.set()
            await anyio.Event().wait()  # lock_holder

    async with anyio.create_task_group() as group:
        group.start_soon(holds)
        await held.wait()
        async with lock:  # lock_held
            pass


async def process():
    await anyio.run_process([sys.executable, "-c", "import time; time.sleep(10000)"])  # process


async def tracked_generator():
    async def pages():
        yield 1
        await anyio.Event().wait()  # tracked_generator

    async for _ in progress.track(pages()):
        pass


async def blocked():
    async def call():
        await anyio.sleep(0)
        time.sleep(10000)  # blocked

    async with anyio.create_task_group() as group:
        group.start_soon(poll)
        group.start_soon(call)


async def main():
    with progress.operation("job"):
        await globals()[sys.argv[1]]()


if sys.argv[1] == "outside":
    with progress.operation("job"):
        anyio.run(forever, backend=sys.argv[2])
else:
    anyio.run(main, backend=sys.argv[2])
