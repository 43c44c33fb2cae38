"""Many files on many devices: a queue of tasks, and workers that hold a loaded model each."""
