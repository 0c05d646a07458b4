"""A soak: ordinary exchanges and faults of all kinds, mixed by a seed, through real servers; every answer is judged."""
