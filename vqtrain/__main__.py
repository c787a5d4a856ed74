"""``python -m vqtrain COMMAND`` is the same as ``vqtrain COMMAND``."""

import sys

from vqtrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
