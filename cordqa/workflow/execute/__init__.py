"""Run many independent tasks, on this machine or on a cluster, so that none can spoil another.

The package knows nothing of what a task does.  A task runs in a process of its own, leaves a
record of what became of it, and is not repeated while nothing that it depends on has changed.
"""
