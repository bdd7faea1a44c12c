"""Asyncio programs that hang: `tasks.py SHAPE`. The line where each hangs ends with its name."""

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress


async def poll():
    """Repeat for ever without progress."""
    while True:
        await asyncio.sleep(0.01)


async def quick():
    """Return at once."""
    return 1


async def answer():
    """Never return."""
    await asyncio.get_running_loop().create_future()  # answer


async def gather():
    async def ask():
        await asyncio.Event().wait()  # gather

    await asyncio.gather(quick(), poll(), ask(), poll(), quick())


async def task_group():
    async def ask():
        await asyncio.Event().wait()  # task_group

    async with asyncio.TaskGroup() as group:
        for each in (quick, poll, poll, ask, poll):
            group.create_task(each())


async def nested_groups():
    async def ask():
        await asyncio.Event().wait()  # nested_groups

    async def half(*parts):
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part())

    await asyncio.gather(half(poll, quick), half(quick, ask), half(poll, poll))


async def as_completed():
    async def ask():
        await asyncio.Event().wait()  # as_completed

    for done in asyncio.as_completed([poll(), quick(), ask(), quick()]):
        await done


async def as_completed_in_threads():
    def work(number):
        if number == 2:
            time.sleep(10000)  # as_completed_in_threads

    loop = asyncio.get_running_loop()
    for done in progress.track(asyncio.as_completed([loop.run_in_executor(None, work, number) for number in range(4)])):
        await done


async def wait_in_threads():
    def work(number):
        if number == 2:
            time.sleep(10000)  # wait_in_threads

    loop = asyncio.get_running_loop()
    await asyncio.wait([loop.run_in_executor(None, work, number) for number in range(4)])


async def wait():
    async def ask():
        await asyncio.Event().wait()  # wait

    await asyncio.wait([asyncio.ensure_future(each()) for each in (quick, poll, ask)])


async def wait_for():
    async def ask():
        await asyncio.Event().wait()  # wait_for

    await asyncio.wait_for(ask(), 1000)


async def timeout():
    async with asyncio.timeout(1000):
        await asyncio.Event().wait()  # timeout


async def shield():
    async def ask():
        await asyncio.Event().wait()  # shield

    await asyncio.shield(ask())


async def one_task():
    async def ask():
        await asyncio.Event().wait()  # one_task

    task = asyncio.create_task(ask())
    await quick()
    await task


async def semaphore():
    limit = asyncio.Semaphore(1)
    await limit.acquire()
    async with limit:  # semaphore
        pass


async def condition():
    changed = asyncio.Condition()
    async with changed:
        await changed.wait()  # condition


async def queue_get():
    items = asyncio.Queue()
    await items.get()  # queue_get


async def queue_put():
    items = asyncio.Queue(1)
    await items.put(1)
    await items.put(2)  # queue_put


async def queue_join():
    async def work(items):
        while True:
            item = await items.get()
            if item == 3:
                await answer_to(item)
            items.task_done()

    async def answer_to(item):
        await asyncio.Event().wait()  # queue_join

    items = asyncio.Queue()
    workers = [asyncio.create_task(work(items)) for _ in range(4)]
    for item in range(6):
        items.put_nowait(item)
    await items.join()
    del workers


async def lock_held():
    lock = asyncio.Lock()

    async def holds():
        async with lock:
            await asyncio.Event().wait()  # lock_holder

    holder = asyncio.create_task(holds())
    await asyncio.sleep(0)
    async with lock:  # lock_held
        pass
    del holder


async def tracked_generator():
    async def pages():
        for number in range(10):
            if number == 3:
                await asyncio.Event().wait()  # tracked_generator
            yield number

    async for _ in progress.track(pages(), unit="page"):
        await asyncio.sleep(0)


async def tracked_nested_generators():
    async def rows():
        yield 1
        async with asyncio.timeout(1000):
            await asyncio.Event().wait()  # tracked_nested_generators

    async def pages():
        async for row in rows():
            yield row

    async for _ in progress.track(pages()):
        await asyncio.sleep(0)


async def class_of_items():
    class Pages:
        def __aiter__(self):
            return self

        async def __anext__(self):
            await asyncio.Event().wait()  # class_of_items

    async for _ in progress.track(Pages()):
        pass


async def blocked():
    def tool():
        time.sleep(10000)  # blocked

    async def call():
        await asyncio.sleep(0)
        tool()

    await asyncio.gather(poll(), call())


async def blocked_by_another():
    async def other():
        time.sleep(10000)  # blocked_by_another

    task = asyncio.create_task(other())
    await asyncio.sleep(0.001)
    del task


async def blocked_by_a_pool():
    """Wait for threads in the middle of the event loop."""

    def work(number):
        if number == 1:
            time.sleep(10000)  # blocked_by_a_pool

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(3)))


async def loop_in_a_pool():
    """Run an event loop in a thread."""

    async def ask():
        await asyncio.Event().wait()  # loop_in_a_pool

    with ThreadPoolExecutor(2) as pool:
        pool.submit(lambda: asyncio.run(ask())).result()


async def condition_held():
    changed = asyncio.Condition()

    async def holds():
        async with changed:
            await asyncio.Event().wait()  # condition_holder

    holder = asyncio.create_task(holds())
    await asyncio.sleep(0)
    async with changed:  # condition_held
        changed.notify_all()
    del holder


async def executor():
    def work(number):
        if number == 1:
            time.sleep(10000)  # executor

    loop = asyncio.get_running_loop()
    await asyncio.gather(*[loop.run_in_executor(None, work, number) for number in range(3)])


async def to_thread():
    def work():
        time.sleep(10000)  # to_thread

    await asyncio.to_thread(work)


async def subprocess():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(10000)")
    await process.wait()  # subprocess


async def communicate():
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("sleep", "10000", stdin=pipe, stdout=pipe, stderr=pipe)
    await process.communicate(b"x")  # communicate


async def stream():
    async def serve(reader, writer):
        await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await reader.readline()  # stream


async def from_thread():
    """Let the loop run something from a thread, and wait for it."""
    loop = asyncio.get_running_loop()

    async def ask():
        await asyncio.Event().wait()  # from_thread

    def work():
        with progress.operation("thread"):
            asyncio.run_coroutine_threadsafe(ask(), loop).result()

    await asyncio.to_thread(work)


async def main():
    with progress.operation("job"):
        await globals()[sys.argv[1]]()


if "uvloop" in sys.argv:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
