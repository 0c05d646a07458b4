"""Byte-mutating fuzzing of everything that reads what a caller or an upstream wrote."""
