"""Other ways to run the same order saga, each in a Python environment of its own."""
