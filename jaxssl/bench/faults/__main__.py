"""`python -m jaxssl.bench.faults`."""

import sys

from jaxssl.bench.faults.command import main

sys.exit(main())
