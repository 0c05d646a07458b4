"""`python -m tests.soak --minutes N`: the soak by command. Exit status 1 where anything was wrong."""

import argparse
import asyncio
import random
import sys
from typing import get_args

from tests.soak.plan import Door
from tests.soak.run import Soak


def main() -> int:
    """Runs it and prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--door", choices=("both", *get_args(Door)), default="both")
    parser.add_argument("--only", type=int, help="repeat this one exchange of the seed's")
    arguments = parser.parse_args()
    doors = get_args(Door) if arguments.door == "both" else (arguments.door,)
    print(f"seed {arguments.seed}", flush=True)
    soak = Soak(arguments.seed, doors, arguments.only, lambda line: print(line, flush=True))
    tally = asyncio.run(soak.run(arguments.minutes * 60))
    print(tally.report())
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
