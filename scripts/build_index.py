"""Index a folder of CTs into an archive: `vlretrieval index` for those who look for a script.

Example: python scripts/build_index.py STUDIES --archive ARCHIVE --segmenter head-neck-oar
"""

from __future__ import annotations

import sys

from vlretrieval.cli import main

if __name__ == "__main__":
    main(["index", *sys.argv[1:]])
