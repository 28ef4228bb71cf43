"""The same job on this machine: pods become processes, the ConfigMap with the rank table becomes a file.

In: what `render` made for a cluster. Out: a run folder. The idea is that nothing about a job is decided here: `pod`
reads the rendered manifests as a kubelet would, `kubelet` runs their containers' commands, `supervise` looks, asks the
same `observe` and `decide` as the cluster's operator, and carries the decision out. What runs on a laptop has therefore
gone through the plan, the environment, the agent and the restarts that it will meet on a cluster.

Everything started here dies with `ringctl` (`ring_worker.tether`); it must be started from the main thread.
"""
