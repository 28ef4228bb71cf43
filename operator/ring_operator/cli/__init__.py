"""`ringctl`: validate, explain, plan and run training jobs here; submit them to a cluster, and look after them there.

One file a command; `common` has what they share, `remote` those that talk to a cluster, `view` shows runs. Exit codes:
0 all is well, 1 what was asked cannot be, 2 the command line cannot; the others are in `remote.options`.
"""

try:
    from ring_operator.cli.main import main
except KeyboardInterrupt:  # the packages take a second to load
    raise SystemExit(130) from None

__all__ = ["main"]
