"""One file a claim, each runnable alone: ``.venv/bin/python -m benchmarks.NAME [--quick]``."""
