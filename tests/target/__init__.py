"""Tests of `_target.py`: from the raw path to the selector, and from the target to the upstream's URL."""
