"""`python -m ring_operator.cli` is `ringctl`."""

from ring_operator.cli.main import main

main()
