"""Where the operator listens: kopf's doorways, the queue, and the one reconcile that all of them feed.

`doorways` hands events of jobs on, `controller` looks at one job at a time and has its acts carried out, `queue` keeps
keys apart, `metrics` counts, `server` answers probes, `operator` ties the parts together for one process.
"""
