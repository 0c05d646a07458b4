"""Tests of the token stores, against real servers."""
