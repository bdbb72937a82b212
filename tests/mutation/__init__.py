"""The proof that the tests can fail: `python -m tests.mutation`."""
