"""`python -m vlretrieval` is the `vlretrieval` command."""

from vlretrieval.cli import main

main()
