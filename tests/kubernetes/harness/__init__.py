"""A real one-node Kubernetes for tests, and what the suites on it share.

See tests/kubernetes/README.md.
"""
