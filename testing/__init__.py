"""The harness of real processes, and the data that tests and benchmarks share; no room imports it."""
