"""``python -m semidg``."""

import sys

from semidg.cli import main

sys.exit(main())
