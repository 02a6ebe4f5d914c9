"""`python -m delrec_hf` is the `delrec` command."""

import sys

from delrec_hf.cli import main
from delrec_hf.launch import part

code = main()
part(code)
sys.exit(code)
