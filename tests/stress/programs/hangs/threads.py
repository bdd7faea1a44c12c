"""Programs of threads that hang: `threads.py SHAPE`. The line where each hangs ends with its name."""

import concurrent.futures as cf
import http.client
import multiprocessing
import multiprocessing.pool
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress

never = threading.Event()


def pool_wait():
    def work(number):
        if number == 5:
            never.wait()  # pool_wait

    with ThreadPoolExecutor(8) as pool:
        cf.wait([pool.submit(work, number) for number in range(40)])


def pool_as_completed():
    def work(number):
        if number == 5:
            never.wait()  # pool_as_completed
        return number

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work, number) for number in range(40)]
        for future in progress.track(cf.as_completed(futures)):
            future.result()


def pool_map():
    def work(number):
        if number == 5:
            never.wait()  # pool_map
        return number

    with ThreadPoolExecutor(8) as pool:
        for _ in progress.track(pool.map(work, range(40))):
            pass


def pool_exit():
    def work(number):
        if number == 5:
            never.wait()  # pool_exit

    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            pool.submit(work, number)


def pool_queued():
    """What is waited for never started: all threads hang."""

    def work(number):
        if number < 2:
            never.wait()  # pool_queued

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, number) for number in range(40)]
        futures[30].result()


def pool_carried():
    def work(number):
        if number == 5:
            never.wait()  # pool_carried
        progress.advance()

    with ThreadPoolExecutor(8) as pool:
        cf.wait([pool.submit(progress.carry(work), number) for number in range(40)])


def carrying_executor():
    def work(number):
        if number == 5:
            never.wait()  # carrying_executor
        return number

    with progress.CarryingExecutor(8) as pool:
        list(pool.map(work, range(40)))


def thread_pool_of_multiprocessing():
    def work(number):
        if number == 5:
            never.wait()  # thread_pool_of_multiprocessing

    with multiprocessing.pool.ThreadPool(8) as pool:
        pool.map(work, range(40), chunksize=1)


def thread_pool_imap():
    def work(number):
        if number == 5:
            never.wait()  # thread_pool_imap
        return number

    with multiprocessing.pool.ThreadPool(8) as pool:
        for _ in progress.track(pool.imap_unordered(work, range(40))):
            pass


def nested_pools():
    def work():
        never.wait()  # nested_pools

    def outer():
        with ThreadPoolExecutor(1) as inner:
            inner.submit(work).result()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(outer).result()


def queue_join():
    def answer_to(item):
        if item == 3:
            never.wait()  # queue_join

    def work(items):
        while True:
            item = items.get()
            answer_to(item)
            items.task_done()

    items = queue.Queue()
    for _ in range(4):
        threading.Thread(target=work, args=(items,), daemon=True).start()
    for item in range(20):
        items.put(item)
    items.join()


class Worker(threading.Thread):
    """A thread with a queue of its own."""

    def __init__(self, items):
        super().__init__(daemon=True)
        self.items = items

    def run(self):
        while True:
            self.work(self.items.get())
            self.items.task_done()

    def work(self, item):
        if item == 3:
            never.wait()  # queue_join_class


def queue_join_class():
    items = queue.Queue()
    for _ in range(3):
        Worker(items).start()
    for item in range(20):
        items.put(item)
    items.join()


def queue_join_pool():
    def work(items):
        while True:
            item = items.get()
            if item == 3:
                never.wait()  # queue_join_pool
            items.task_done()

    items = queue.Queue()
    pool = ThreadPoolExecutor(3)
    for _ in range(3):
        pool.submit(progress.carry(work), items)
    for item in range(20):
        items.put(item)
    items.join()


def queue_get():
    items = queue.Queue()
    items.get()  # queue_get


def simple_queue():
    queue.SimpleQueue().get()  # simple_queue


def queue_put():
    items = queue.Queue(1)
    while True:
        items.put(1)  # queue_put


def hold(lock):
    """Let another thread hold it."""
    held = threading.Event()

    def holds():
        with lock:
            held.set()
            never.wait()  # holder

    threading.Thread(target=holds, name="holder", daemon=True).start()
    held.wait()


def lock():
    guard = threading.Lock()
    hold(guard)
    with guard:  # lock
        pass


shared = threading.RLock()


def rlock():
    hold(shared)
    with shared:  # rlock
        pass


def semaphore():
    guard = threading.Semaphore(1)
    hold(guard)
    with guard:  # semaphore
        pass


def condition():
    changed = threading.Condition()
    with changed:
        changed.wait()  # condition


def condition_held():
    changed = threading.Condition()
    hold(changed)
    with changed:  # condition_held
        pass


def event():
    never.wait()  # event


def barrier():
    threading.Barrier(2).wait()  # barrier


def joined():
    def work():
        never.wait()  # joined

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()


def tracked_generator():
    def pages():
        yield 1
        never.wait()  # tracked_generator

    def rows():
        yield from pages()

    for _ in progress.track(rows()):
        pass


def child():
    subprocess.run([sys.executable, "-c", "import time; time.sleep(10000)"], check=True)  # child


def child_output():
    subprocess.check_output(["sleep", "10000"], stderr=subprocess.PIPE)  # child_output


def silent():
    server = socket.create_server(("127.0.0.1", 0))
    silent.server = server
    return server.getsockname()


def recv():
    with socket.create_connection(silent()) as connection:
        connection.recv(100)  # recv


def urlopen():
    host, port = silent()
    urllib.request.urlopen(f"http://{host}:{port}/")  # urlopen


def http_client():
    connection = http.client.HTTPConnection(*silent())
    connection.request("GET", "/")
    connection.getresponse()  # http_client


def accept():
    socket.create_server(("127.0.0.1", 0)).accept()  # accept


def selects():
    one, other = socket.socketpair()
    select.select([one], [], [])  # selects
    del other


def sigwait():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.sigwait([signal.SIGUSR1])  # sigwait


def asks():
    input()  # asks


def sleeps():
    time.sleep(10000)  # sleeps


def hang_in_a_process(number):
    if number == 3:
        time.sleep(10000)
    return number


def process_pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(hang_in_a_process, range(8), chunksize=1)  # process_pool


def process_executor():
    with cf.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        list(pool.map(hang_in_a_process, range(8)))  # process_executor


def process_exit():
    with cf.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:  # process_exit
        pool.submit(hang_in_a_process, 3)


def process_join():
    process = multiprocessing.get_context("fork").Process(target=hang_in_a_process, args=(3,))
    process.start()
    process.join()  # process_join


def process_queue():
    multiprocessing.get_context("fork").Queue().get()  # process_queue


if __name__ == "__main__":
    with progress.operation("job"):
        globals()[sys.argv[1]]()
