"""Observed -> what is to be done: `decide` for any place a job runs in, `cluster` for the objects of a real one.

Pure functions: whoever observes (the cluster's operator or this machine) also carries the decision out, and hands what
must outlive the pods back with the next look.
"""

from ring_operator.reconcile.decide import Action, Decision, Reason, decide

__all__ = ["Action", "Decision", "Reason", "decide"]
