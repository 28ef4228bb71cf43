"""From real text to windows of tokens: `sources` -> `shards` -> `prepare` -> `dataset`.

`python -m ring_worker.data` prepares once and writes memory-mapped token shards; every rank then opens a `Dataset` and
reads only the positions of a window that it works on. Nothing here imports torch: the data are prepared in a pod, or
in tests, before anything heavy starts.
"""
