"""Tests with real notebooks, Streamlit and Gradio, which run in an environment of their own."""
