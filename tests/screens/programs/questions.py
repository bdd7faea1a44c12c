"""A Gradio app whose operation has the name that the user types; without a total if it says so."""

import os
import time
from pathlib import Path

import gradio as gr

import otel_progress as progress
from otel_progress.handlers.gradio import GradioHandler


def answer(name, bar=gr.Progress()):  # noqa: B008
    """Count to thirty, and at fifteen wait for the test."""
    total = None if name.startswith("without total") else 30
    with GradioHandler(bar), progress.operation(name, total=total, unit="step"):
        progress.advance(15)
        while not Path(os.environ["GO"]).exists():
            time.sleep(0.05)
        progress.advance(15)
    return "done"


gr.Interface(answer, "text", "text", concurrency_limit=5).launch()
