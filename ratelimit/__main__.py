"""`python -m ratelimit`: the same as the command `ratelimit`."""

import sys

from ratelimit.cli import main

if __name__ == "__main__":
    sys.exit(main())
