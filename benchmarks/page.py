"""Speed of the monitor's page: 10,000 operations, 200 changes ten times a second, in a real Chromium.

python -m benchmarks.page

The stub of the browser tests serves the page, so that only the page is measured: from the publication of a change to
the frame of the screen that shows it, including the JSON of the stub and the transfer over the socket.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from playwright.sync_api import Page, sync_playwright
from tests.browser.scene import many
from tests.browser.stub import Stub, World

# Notes when the first rows were painted, and how long after its publication each change of one row was.
WATCH = """
window.seen = {ready: null, delays: []};
const painted = (act) => requestAnimationFrame(() => {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = act;
  port2.postMessage(0);
});
new MutationObserver((_, watch) => {
  if (!document.querySelector('.row')) return;
  watch.disconnect();
  painted(() => { seen.ready = performance.now(); });
}).observe(document, {childList: true, subtree: true});
window.follow = (id) => {
  let last = '';
  const look = () => {
    const words = document.getElementById(`line-${id}`)?.querySelector('.row-what')?.textContent;
    const text = words?.match(/at (\\d+\\.\\d+)/)?.[1];
    if (!text || text === last) return;
    last = text;
    painted(() => seen.delays.push(Date.now() - Number(text) * 1000));
  };
  const all = {childList: true, subtree: true, characterData: true};
  new MutationObserver(look).observe(document.querySelector('.list'), all);
};
"""


def publish(world: World, page: Page, watched: str, count: int, seconds: float) -> None:
    """Publish this number of changes ten times a second; the watched operation is the last of each ten."""
    idents = [ident for ident in world.operations if ident != watched]
    began = time.monotonic()
    for turn in range(int(seconds * 10)):
        with world.lock:
            for number in range(count - 1):
                ident = idents[(turn * (count - 1) + number) % len(idents)]
                progress = {
                    **world.operations[ident]["progress"],
                    "completed": turn % 100,
                    "percentage": float(turn % 100),
                }
                world.put(ident, progress=progress, timestamp=time.time())
            progress = {**world.operations[watched]["progress"], "current_step": f"at {time.time():.4f}"}
            world.put(watched, progress=progress, timestamp=time.time())
        page.wait_for_timeout(max(0, (began + (turn + 1) / 10 - time.monotonic()) * 1000))


def measure(count: int = 10_000, changes: int = 200, seconds: float = 10.0) -> dict[str, Any]:
    world = many(World(), count)
    world.interval = 0.005
    stub = Stub(world).start()
    try:
        with sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
            ready = []
            for _ in range(5):
                page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
                page.add_init_script(WATCH)
                page.goto(stub.url)
                page.wait_for_function("() => seen.ready !== null")
                ready.append(page.evaluate("seen.ready"))
                if len(ready) < 5:
                    page.context.close()
            page.wait_for_function(f"() => import('/static/state.js').then((state) => state.countKnown() === {count})")
            all_loaded = page.evaluate("performance.now()")
            page.wait_for_timeout(500)
            watched = page.locator(".row").first.evaluate("(one) => one.id.slice(5)")
            page.evaluate("(id) => follow(id)", watched)
            publish(world, page, watched, changes, seconds)
            page.wait_for_timeout(300)
            seen = page.evaluate("({...seen, nodes: document.querySelectorAll('*').length})")
            browser.close()
    finally:
        stub.stop()
    delays = sorted(seen["delays"])
    return {
        "operations": count,
        "changes_a_second": changes * 10,
        "ready_ms": round(statistics.median(ready)),
        "ready_best_ms": round(min(ready)),
        "all_loaded_ms": round(all_loaded),
        "paint_p50_ms": round(statistics.median(delays), 1),
        "paint_p99_ms": round(delays[min(len(delays) - 1, int(len(delays) * 0.99))], 1),
        "painted": len(delays),
        "published": int(seconds * 10),
        "nodes": seen["nodes"],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=10.0)
    print(json.dumps(measure(seconds=options.parse_args().seconds), indent=2))


if __name__ == "__main__":
    main()
