"""A Streamlit page with a job in the background that outlives reruns, and one that the script waits for.

Run it: `pip install "otel-progress[streamlit]"`, then `streamlit run examples/streamlit_app.py`.
"""

import threading
import time

import streamlit as st

import otel_progress as progress
from otel_progress.handlers.streamlit import StreamlitHandler, show


def import_files(job: progress.Operation) -> None:
    """Work in a thread that knows nothing of Streamlit."""
    with job:
        with progress.stage("scan"):
            time.sleep(1)
        with progress.stage("load", total=40, unit="file"):
            for number in range(40):
                progress.update(message=f"file {number}.csv")
                progress.advance(1)
                time.sleep(0.1)
        with progress.stage("index"):
            time.sleep(1)


st.title("Import")
if st.button("Start in the background"):
    job = progress.operation("import files", plan=["scan", "load", "index"])
    st.session_state.job = job
    threading.Thread(target=import_files, args=(job,), daemon=True).start()
if "job" in st.session_state:
    state = show(st.session_state.job, rerun=True)
    if state is not None and state.status is progress.Status.COMPLETED:
        st.success("All files are there.")

if st.button("Export while the page waits"):
    with StreamlitHandler(st.container()), progress.operation("export", total=20, unit="row"):
        for _ in range(20):
            progress.advance(1)
            time.sleep(0.1)
