"""Execute cells in a real kernel; answer with the outputs of each cell, and the messages of displays."""

import json
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError


class Client(NotebookClient):
    """Keeps the time and the size of each display and update."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def process_message(self, message, cell, index):
        """Note a message."""
        if message["msg_type"] in {"display_data", "update_display_data"}:
            size = len(json.dumps(message["content"]))
            key = message["content"]["transient"].get("display_id")
            self.seen.append({"id": key, "at": time.monotonic(), "size": size, "type": message["msg_type"]})
        return super().process_message(message, cell, index)


given = json.load(sys.stdin)
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in given["cells"]])
client = Client(notebook, kernel_name="python3", timeout=60, allow_errors=True)
dead = False
try:
    client.execute()
except DeadKernelError:
    dead = True
if given.get("path"):
    nbformat.write(notebook, given["path"])
answer = {"outputs": [cell.outputs for cell in notebook.cells], "seen": client.seen, "dead": dead}
Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")
