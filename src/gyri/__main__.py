"""``python -m gyri``."""

import sys

from gyri.cli import main

sys.exit(main())
