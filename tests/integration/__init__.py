"""The proxy inside real servers, between a raw caller and a scripted upstream."""
