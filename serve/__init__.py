"""The HTTP endpoint: a Ray Serve application around `load(bundle).read`."""
