"""The files for Docker, KubeRay, Slurm, SkyPilot and foreign Ray clusters, as far as paper goes.

What they start exists, the settings that they pass are settings, and the schemas of Ray and KubeRay
accept them. No engine, no Kubernetes and no Slurm is needed; docs/clusters.md says what that leaves
untried.
"""

import gzip
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ocr.retraining import RetrainConfig
from ocr.settings import load_settings, settings_from
from ray_jobs import command
from ray_jobs.train_odia import CTC, VLM
from serve.config import ServeConfig
from trainers.config import TrainConfig

PROJECT = Path(__file__).parent.parent
SCHEMAS = PROJECT.parent / "shared" / "data" / "kuberay_crds"
PAGE = PROJECT / "docs" / "clusters.md"
SLURM = PROJECT / "configs" / "slurm" / "train.sh"
FILES = [
    PROJECT / "Dockerfile",
    PROJECT / "cluster.yaml",
    *(
        file
        for place in ("cluster", "kuberay", "slurm", "skypilot")
        for file in sorted((PROJECT / "configs" / place).iterdir())
    ),
]
RAY_FILES = [PROJECT / "configs" / "kuberay" / f"{name}.yaml" for name in ("train", "serve")] + [
    PROJECT / "configs" / "kuberay" / "retrain.yaml"
]
RAY_VERSION = re.search(  # type: ignore[union-attr]
    r"^ray==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE
).group(1)
SKYPILOT: dict[str, Any] = yaml.safe_load((PROJECT / "configs/skypilot/train.yaml").read_text())
named = pytest.mark.parametrize("file", RAY_FILES, ids=lambda file: file.stem)


def manifest(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


def job_of(content: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = content["spec"]
    return spec.get("jobTemplate", spec)  # type: ignore[no-any-return]


def cluster_of(content: dict[str, Any]) -> dict[str, Any]:
    job = job_of(content)
    return job.get("rayClusterSpec") or job["rayClusterConfig"]  # type: ignore[no-any-return]


def groups_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = cluster_of(content)
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]


def commands_in(file: Path) -> list[list[str]]:
    """The words of every `python ray_jobs/…` of a file, up to the end of the shell command."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r'"\$[^"]*"', "$", text)  # known to the shell alone; left out below
    found = re.findall(r"python\S* (ray_jobs/\w+\.py[^\n`;|&>#)]*)", text)
    return [shlex.split(words.strip("\"' ")) for words in found]


def require_settings(words: list[str]) -> None:
    """Raise where the script does not exist, or its words are not its settings."""
    script, *rest = words
    assert (PROJECT / script).is_file(), script
    rest = [word for word in rest if "$" not in word and not word.startswith("--")]
    if script == "ray_jobs/retrain.py":
        bundle, corrections, *overrides = rest
        given = [f"bundle={bundle}", f"corrections={corrections}", *overrides]
        settings_from(RetrainConfig, {}, given, script)
    elif script in ("ray_jobs/train.py", "ray_jobs/train_odia.py"):
        config, overrides = command.split_config(rest)
        for path in [config] if config else [VLM, CTC]:
            load_settings(TrainConfig, PROJECT / path, overrides)


@pytest.mark.parametrize("file", [*FILES, PAGE], ids=lambda file: file.name)
def test_what_it_starts_exists_and_its_settings_are_settings(file: Path) -> None:
    for words in commands_in(file):
        require_settings(words)
    for path in re.findall(r"\bconfigs/[\w/]+\.\w+", file.read_text(encoding="utf-8")):
        assert (PROJECT / path).is_file(), path


def test_every_way_to_start_a_run_was_looked_at() -> None:
    started = {file.name for file in FILES if commands_in(file)}
    assert {"train.yaml", "retrain.yaml", "train.sh", "runtime_env.yaml"} <= started
    assert len(commands_in(PAGE)) >= 3


@pytest.mark.parametrize("wrong", ["workers=four", "train.max_step=1"])
def test_a_wrong_setting_would_be_found(wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong.partition("=")[0]):
        require_settings(["ray_jobs/train_odia.py", wrong])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_opens_with_the_command_that_uses_it(file: Path) -> None:
    lines = file.read_text().splitlines()
    first = next(line for line in lines if not line.startswith("#!"))
    path = "." if file.name == "Dockerfile" else str(file.relative_to(PROJECT))
    assert re.match(r"# (ray|docker|kubectl|sbatch|sky) ", first)
    assert path in first.split()
    assert max(map(len, lines)) <= 100
    assert f"`{file.relative_to(PROJECT)}`" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_runs_lie_in_a_folder_that_several_nodes_may_share(file: Path) -> None:
    text = file.read_text()
    folders = re.findall(r"LIPI_STORAGE(?:: |=|, value: )(?:\$\{LIPI_STORAGE:-)?(/\w+)", text)
    assert set(folders) <= {"/mnt", "/shared", "/efs", "/nfs"}
    assert folders or file.name in ("storage.yaml",)


# KubeRay


def strict(schema: Any) -> Any:
    """A CRD's schema as the API server applies it: unknown keys refused, int-or-string."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: strict(value) for key, value in schema.items() if key != "format"}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def schema_of(kind: str) -> Any:
    file = SCHEMAS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not file.is_file():
        pytest.skip("KubeRay's schemas are not here")
    with gzip.open(file) as stream:
        definition = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    versions = definition["spec"]["versions"]
    v1 = next(version for version in versions if version["name"] == "v1")
    top = v1["schema"]["openAPIV3Schema"]
    top["properties"]["metadata"] = {}  # the API server's own
    return strict(top)


@named
def test_kuberays_schema_accepts_it(file: Path) -> None:
    content = manifest(file)
    schema = schema_of(content["kind"])
    jsonschema.validate(content, schema)
    cluster_of(content)["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):
        jsonschema.validate(content, schema)


@named
def test_every_pod_has_the_token_the_storage_and_an_image_of_ours_and_no_root(file: Path) -> None:
    content = manifest(file)
    cluster = cluster_of(content)
    assert content["apiVersion"] == "ray.io/v1"
    assert cluster["rayVersion"] == RAY_VERSION
    assert cluster["authOptions"] == {"mode": "token", "secretName": "lipi-ray-token"}
    claim = manifest(file.parent / "storage.yaml")["metadata"]["name"]
    for group in groups_of(content):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] != 0
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": claim}
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts[pod["volumes"][0]["name"]] == environment["LIPI_STORAGE"]
        assert re.search(r"/lipi:(cpu|gpu)$", container["image"])
        assert f"WORKDIR {container['workingDir']}\n" in (PROJECT / "Dockerfile").read_text()


def test_training_is_retried_and_has_a_gpu_for_each_worker() -> None:
    content = manifest(RAY_FILES[0])
    assert content["kind"] == "RayJob" and content["spec"]["backoffLimit"] >= 1
    assert content["spec"]["shutdownAfterJobFinishes"]
    (group,) = cluster_of(content)["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = group["replicas"] * int(limits["nvidia.com/gpu"])
    assert content["spec"]["entrypoint"].split()[:2] == ["python", "ray_jobs/train_odia.py"]
    config = load_settings(TrainConfig, PROJECT / VLM)
    assert config.workers == "auto" and gpus <= config.train.micro_batches


@pytest.mark.filterwarnings("ignore")  # Ray's own deprecations at import
def test_ray_serve_and_the_endpoint_accept_the_served_application() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.deployment import APPLICATION

    values = yaml.safe_load(manifest(RAY_FILES[1])["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(values).applications
    assert (application.name, application.import_path) == (APPLICATION, "serve.app:build")
    config = settings_from(ServeConfig, application.args, [], "serve.yaml")
    assert config.port == values["http_options"]["port"]
    assert config.api_keys_sha256 == ("0" * 64,), "no key fits until the user gives one"


def test_the_nightly_retraining_reads_what_the_endpoint_collects() -> None:
    content = manifest(RAY_FILES[2])
    assert content["kind"] == "RayCronJob"
    assert len(content["spec"]["schedule"].split()) == 5
    serving = yaml.safe_load(manifest(RAY_FILES[1])["spec"]["serveConfigV2"])
    stored = serving["applications"][0]["args"]["storage_path"]
    assert job_of(content)["entrypoint"].split()[-1] == f"{stored}/corrections"


# Slurm


def run_under_a_stand_in_of_slurm(folder: Path, *words: str) -> list[str]:
    """Run the script with programs that only write their arguments; return those of ray."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, code in {
        "scontrol": "printf 'node1\\nnode2\\n'",
        "hostname": "echo 10.0.0.5 172.17.0.1",
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "ray": 'printf "%s\\n" "$RAY_AUTH_MODE" "$LIPI_STORAGE" "$@" > ray_$1.txt',
    }.items():
        program = programs / name
        program.write_text(f"#!/bin/bash\n{code}\n")
        program.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_PER_NODE": "a100:2",
        "SLURM_CPUS_PER_TASK": "16",
    }
    subprocess.run(["bash", str(SLURM), *words], check=True, env=environment, cwd=folder)
    assert (folder / "ray_get-auth-token.txt").is_file()
    return (folder / "ray_symmetric-run.txt").read_text().splitlines()


def test_the_slurm_script_starts_ray_on_all_nodes_and_one_worker_a_gpu(tmp_path: Path) -> None:
    mode, storage, *words = run_under_a_stand_in_of_slurm(
        tmp_path, "configs/odia.yaml", "train.max_steps=1000"
    )
    assert (mode, storage) == ("token", "/shared/lipi")
    assert words[:5] == ["symmetric-run", "--address", "10.0.0.5:6379", "--min-nodes", "2"]
    entry = words[words.index("--") + 1 :]
    assert entry[:3] == ["env", "RAY_ADDRESS=10.0.0.5:6379", "python"]
    assert entry[4:] == ["configs/odia.yaml", "train.max_steps=1000"]
    require_settings(entry[3:])


@pytest.mark.filterwarnings("ignore")
def test_ray_accepts_the_options_of_the_slurm_script(tmp_path: Path) -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    words = run_under_a_stand_in_of_slurm(tmp_path)[3:]
    options = curate_and_validate_ray_start_args(words[: words.index("--")])
    context = start.make_context("start", [*options, "--head"])
    assert (context.params["num_cpus"], context.params["num_gpus"]) == (16, 2)


def test_a_slurm_job_is_queued_again_and_has_as_many_workers_as_micro_batches() -> None:
    text = SLURM.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", text, re.MULTILINE))
    assert "requeue" in options and options["ntasks-per-node"] == "1"
    train = load_settings(TrainConfig, VLM).train
    workers = int(options["nodes"]) * int(options["gpus-per-node"])
    assert workers == train.global_batch_size // train.micro_batch_size


# SkyPilot, Docker, other clusters


def test_skypilot_trains_on_spot_machines_with_runs_in_a_bucket() -> None:
    resources, (mount, bucket) = SKYPILOT["resources"], *SKYPILOT["file_mounts"].items()
    assert resources["use_spot"] is True and resources["disk_size"] >= 200
    assert resources["job_recovery"]["max_restarts_on_errors"] >= 1
    assert (mount, bucket["mode"]) == (SKYPILOT["envs"]["LIPI_STORAGE"], "MOUNT_CACHED")


@pytest.mark.parametrize("part", ["setup", "run"])
def test_skypilots_shell_parses(part: str) -> None:
    subprocess.run(["bash", "-n", "-c", SKYPILOT[part]], check=True)


def test_the_image_is_rays_of_the_same_version_and_does_not_run_as_root() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
    python = re.fullmatch(
        rf"rayproject/ray:{re.escape(RAY_VERSION)}-py3(\d+)-\$\{{PLATFORM\}}", base
    )
    assert python and int(python.group(1)) >= 11
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "1000:100"
    (words,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    require_settings(yaml.safe_load(words)[1:])


def test_requirements_name_no_folder_of_a_machine() -> None:
    assert "file://" not in (PROJECT / "requirements.txt").read_text()


@pytest.mark.filterwarnings("ignore")
def test_ray_accepts_the_runtime_env_and_reads_every_requirement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.runtime_env import RuntimeEnv

    monkeypatch.chdir(PROJECT)
    values = manifest(PROJECT / "configs/cluster/runtime_env.yaml")
    packages = RuntimeEnv(**values)["pip"]["packages"]
    assert f"ray=={RAY_VERSION}" in packages and len(packages) > 100


@pytest.mark.parametrize(
    ("program", "file"), [("shellcheck", SLURM), ("hadolint", PROJECT / "Dockerfile")]
)
def test_a_linter_that_is_installed_finds_nothing(program: str, file: Path) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    subprocess.run([program, str(file)], check=True)
