"""Random calls of everything public: `python -m tests.fuzz`."""
