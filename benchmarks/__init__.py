"""Each module is one benchmark and one command: `python -m benchmarks.NAME`. Figures are ratios within one run."""
