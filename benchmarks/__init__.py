"""Speed as a ratio against a named peer, both sides interleaved in one run, on the same cores with the same threads."""
