"""A page of another origin in a real browser can neither send telemetry nor cancel, whatever it tries."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")
from playwright.sync_api import expect
from tests.stress.served import event, serving, wait_until

TRIES = """async (url) => {
  const seen = [];
  const body = '{"resourceLogs":[]}';
  for (const path of ["/v1/logs", "/v1/traces", "/control", "/operations/a"]) {
    for (const how of [
      {mode: "no-cors"}, {mode: "cors"}, {mode: "no-cors", referrerPolicy: "no-referrer"},
      {mode: "no-cors", credentials: "include"}, {mode: "no-cors", keepalive: true},
      {mode: "cors", headers: {"content-type": "application/json"}}, {mode: "cors", method: "DELETE", body: null},
    ]) {
      try { const a = await fetch(url + path, {method: "POST", body, ...how}); seen.push(a.type + a.status); }
      catch (error) { seen.push("refused"); }
    }
    navigator.sendBeacon(url + path, new Blob([body], {type: "text/plain"}));
    const form = document.createElement("form");
    const frame = Object.assign(document.createElement("iframe"), {name: "f" + seen.length});
    Object.assign(form, {method: "POST", action: url + path, target: frame.name, enctype: "text/plain"});
    form.append(Object.assign(document.createElement("input"), {name: '{"a":"', value: '"}'}));
    document.body.append(frame, form);
    const loaded = new Promise((done) => frame.addEventListener("load", done, {once: true}));
    form.submit();
    await loaded;
  }
  return seen;
}"""


class Page(BaseHTTPRequestHandler):
    """An empty page of another origin."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title><body></body>")

    def log_message(self, *_):
        pass


def test_page_of_another_origin_is_refused(browser, tmp_path):
    """By fetch in each mode, without a referrer, by beacon and by form: 403 for all of them, and nothing is taken."""
    other = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    answers = []
    with serving(tmp_path) as monitor:
        monitor.send(event("a"))
        taken = wait_until(lambda: monitor.monitor.core.taken)
        refuse = monitor.monitor.auth.refuse

        def watched(path, headers):
            found = refuse(path, headers)
            why = found and found[1]
            if path.startswith(("/v1/", "/control", "/operations/a")):
                answers.append((path, why))
            return found

        monitor.monitor.auth.refuse = watched
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{other.server_port}/")
        seen = page.evaluate(TRIES, monitor.monitor.url)
        context.close()
        assert set(seen) == {"refused"}
        assert {path for path, _ in answers} == {"/v1/logs", "/v1/traces", "/control", "/operations/a"}
        assert len(answers) >= 24
        assert [path for path, why in answers if why is None] == []
        assert monitor.monitor.core.taken == taken
        assert "cancel" not in monitor.detail("a")
    other.shutdown()
    other.server_close()


def test_page_says_what_a_program_sends_wrong(browser, tmp_path):
    """Beside the operation of a program without our SDK, in words that name the field."""
    with serving(tmp_path) as monitor:
        wrong = {"progress.completed": "12"}
        record = {
            "eventName": "progress.updated",
            "attributes": [
                {"key": key, "value": {"stringValue": value}}
                for key, value in {
                    "progress.operation.id": "a",
                    "progress.operation.name": "work",
                    "progress.status": "running",
                    **wrong,
                }.items()
            ]
            + [
                {"key": "progress.sequence", "value": {"intValue": "1"}},
                {"key": "progress.start_time", "value": {"doubleValue": 1_763_750_000.0}},
            ],
        }
        body = {"resourceLogs": [{"scopeLogs": [{"scope": {"name": "theirs"}, "logRecords": [record]}]}]}
        answer = monitor.ask("POST", "/v1/logs", json.dumps(body).encode(), {"Content-Type": "application/json"})
        assert b"progress.completed must be a number of at least 0" in answer.body
        assert monitor.get("/health")["mistakes"]["type"] == 1
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{monitor.monitor.url}/#/operations/a")
        found = page.locator("section[aria-labelledby=mistakes-title]")
        expect(found).to_contain_text("progress.completed must be a number of at least 0")
        context.close()
