"""The commands that talk to a cluster: submit, status, top, logs, suspend, resume, restart, delete.

Each reads jobs through `ring_operator.remote`, and prints for people or, with `-o json`, for programs. Following a job
to its end (`--wait`) shows it by the views of `ringctl run`: `follow` makes of a changing status the events that they
are told.
"""
