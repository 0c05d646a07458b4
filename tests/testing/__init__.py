"""Tests of the kit for others' tests."""
