"""Benchmarks, run as modules from the repository's root: ``python -m benchmarks.core.fit``. README.md lists them all."""
