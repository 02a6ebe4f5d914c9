"""`python -m delrec_hf` is the `delrec` command."""

import sys

from delrec_hf.cli import main

sys.exit(main())
