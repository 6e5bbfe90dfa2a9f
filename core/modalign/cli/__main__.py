"""`python -m modalign.cli`: the command where the script is not on the path."""

import sys

from .main import main

sys.exit(main())
