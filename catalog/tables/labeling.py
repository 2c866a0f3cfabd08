"""Labeling queues: tasks, leases, annotations and the events that explain them."""
