"""A plugin as users have it: built, installed, found by its name, and served with."""
