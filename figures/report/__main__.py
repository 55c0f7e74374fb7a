"""Render the report: `python -m figures.report [--check]`."""

import sys

from figures.report.render import main

sys.exit(main())
