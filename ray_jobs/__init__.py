"""One script per verb; each is run as `python ray_jobs/VERB.py`, alone or by `ray job submit`."""
