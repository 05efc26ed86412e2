"""`python -m search.report STUDY`."""

import sys

from search.report.command import main

sys.exit(main())
