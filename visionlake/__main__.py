"""`python -m visionlake`."""

import sys

from visionlake.cli import main

sys.exit(main())
