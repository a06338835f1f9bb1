"""Two clusters on one machine: each starts jobs."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.support.commands import PROJECT, environment

A_JOB = """
import logging, time
from ocr.local_ray import start_local_ray
start_local_ray(num_cpus=1, include_dashboard=True, dashboard_port=0, log_to_driver=False,
                logging_level=logging.ERROR)
import ray
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient("http://" + ray._private.worker._global_node.webui_url)
for _ in range(60):
    try:
        job = client.submit_job(entrypoint="echo done")
        break
    except RuntimeError as problem:
        print(problem)
        time.sleep(1)
while not client.get_job_status(job).is_terminal():
    time.sleep(0.5)
print(client.get_job_status(job), ray._private.worker._global_node.dashboard_agent_listen_port)
time.sleep(5)
"""


def test_two_local_rays_run_jobs_at_once_and_leave_rays_own_port_free() -> None:
    def run(_: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", A_JOB],
            cwd=PROJECT,
            env=environment(RAY_AUTH_MODE="disabled"),
            capture_output=True,
            text=True,
            timeout=240,
        )

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(run, range(2)))
    words = [done.stdout.split() for done in ended]
    assert all("SUCCEEDED" in said for said in words), [(d.stdout, d.stderr[-2000:]) for d in ended]
    ports = {said[-1] for said in words}
    assert len(ports) == 2 and "52365" not in ports
