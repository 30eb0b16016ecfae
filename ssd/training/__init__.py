"""Training, from photos in memory to a bundle: the task, the loop, validation and checkpoints.

`python -m ssd.training DIR OUT` runs a task that was written into a folder, where only this library is installed.
"""
