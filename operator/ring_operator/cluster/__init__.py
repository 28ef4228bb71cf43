"""The only place that talks to the API server and to the agents of a cluster's pods.

`api` sends requests, `informer` keeps copies of objects up to date, `agents` asks pods, `acts` carries out what
`reconcile` asks for, `events` tells it, `lease` says which replica may write. Nothing here decides anything.
"""
