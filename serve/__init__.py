"""The HTTP endpoint: a Ray Serve application around `load(bundle).read`; web page, corrections and promotion are to come (docs/design.md)."""
