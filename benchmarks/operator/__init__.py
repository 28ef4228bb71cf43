"""What the operator costs and how fast it is, on a real control plane with simulated nodes.

`parts` has one function a figure, `world` the cluster and the operator they run on, `__main__` the table and the JSON.
Client, servers and operator share this machine, so a rate is told as a share of what a bare client reaches beside it.
"""
