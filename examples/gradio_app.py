"""A Gradio app whose progress bar is fed by an operation.

Run it: `pip install "otel-progress[gradio]"`, then `python examples/gradio_app.py`.
"""

import time

import gradio as gr

import otel_progress as progress
from otel_progress.handlers.gradio import GradioHandler


def answer(question: str, bar: gr.Progress = gr.Progress()) -> str:  # noqa: B008
    """Work for some seconds."""
    with GradioHandler(bar), progress.operation("answer", total=20, unit="document"):
        for _ in progress.track(range(20)):
            time.sleep(0.2)
    return f"{question}: 42"


app = gr.Interface(answer, "text", "text", title="Ask")

if __name__ == "__main__":
    app.launch()
