"""Tests of the credential providers, and what checks their work without the libraries that did it."""
