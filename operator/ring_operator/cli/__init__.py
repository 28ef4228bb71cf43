"""`ringctl`: validate, explain, plan and run training jobs. One file a command; `common` has what they share.

Exit codes: 0 all is well, 1 the manifest cannot be used as it is, 2 the command line cannot.
"""

try:
    from ring_operator.cli.main import main
except KeyboardInterrupt:  # the packages take a second to load
    raise SystemExit(130) from None

__all__ = ["main"]
