"""The examples, each on a server of its framework, between a raw caller and a scripted upstream."""
