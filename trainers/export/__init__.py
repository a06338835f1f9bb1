"""What leaves training: bundles whose every backend was measured before they are written."""
