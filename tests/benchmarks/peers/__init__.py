"""Other proxies, asked for the same: each checks the caller's token, and puts the upstream's credential on."""
