"""The files in `cluster/`: each read by its own tool, and in agreement with the profile that it names."""

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from cong import __version__
from cong.graph.resources import Resources, load_profile
from cong.models.architecture import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
BIN = Path(sys.executable).parent
KUBERNETES = kubernetes_validate.latest_version()
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line[:80])
IMAGE_HOME = "/home/ray/cong/"

NAME, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": NAME}
POD = {"type": "object", "required": ["spec"]}


def closed(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# The operator's own schema is 0.9 MB, most of it that of a pod, which is validated by itself below. So this says in few
# words what KubeRay's reference of its API (v1.6) has of the fields that are used here; any other is an error.
HEAD = closed(("template",), rayStartParams=TEXTS, template=POD, serviceType=NAME)
WORKERS = closed(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
RAY_CLUSTER = closed(
    ("headGroupSpec",),
    rayVersion=NAME,
    enableInTreeAutoscaling=FLAG,
    authOptions=closed((), mode={"enum": ["disabled", "token"]}),
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_JOB = closed(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=NAME,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=RAY_CLUSTER,
)


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay" / f"{name}.yaml").read_text()))


def ray_cluster() -> dict[str, Any]:
    return manifests("raycluster")[0]


def pod_templates(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


# Kubernetes.


@pytest.mark.parametrize("name", ["storage", "mlflow"])
def test_kubernetes_knows_every_field_of_a_manifest(name):
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_kuberay_and_kubernetes_know_every_field_of_the_cluster_and_the_job():
    for name, schema in (("raycluster", RAY_CLUSTER), ("rayjob", RAY_JOB)):
        (manifest,) = manifests(name)
        assert manifest["apiVersion"] == "ray.io/v1"
        jsonschema.validate(manifest["spec"], schema)
    for template in pod_templates(ray_cluster()["spec"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_a_misspelt_field_is_found():
    spec = ray_cluster()["spec"]
    spec["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(spec, RAY_CLUSTER)
    manifest = manifests("storage")[0]
    manifest["spec"]["accessMode"] = ["ReadWriteMany"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_ray_reads_from_the_cluster_what_its_profile_demands():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.util import validate_config

    cluster = ray_cluster()
    cluster["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    groups = config["available_node_types"]
    assert groups["headgroup"]["resources"]["CPU"] == 0
    for group in cluster["spec"]["workerGroupSpecs"]:
        has, profile = groups[group["groupName"]]["resources"], load_profile(group["groupName"])
        check_node(profile, cpus=has["CPU"], gpus=has["GPU"])
        # While an actor starts, its model passes through main memory.
        largest = max(model.parameters for model in PUBLISHED.values()) * profile.hardware.itemsize
        assert has["memory"] > profile.decoding.actors * largest
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    assert cluster["spec"]["enableInTreeAutoscaling"] is False


def check_node(profile: Resources, *, cpus: float, gpus: float) -> None:
    """One node runs any stage of the profile, and has a CPU left for the small ones."""
    for demand in (profile.generation_demand(), profile.training_demand()):
        assert demand.gpus == gpus
        assert demand.cpus < cpus


def test_the_job_runs_on_the_cluster_that_the_other_manifest_describes():
    (job,) = manifests("rayjob")
    assert job["spec"]["rayClusterSpec"] == ray_cluster()["spec"]


def test_all_pods_share_the_store_the_models_and_the_secret():
    claims = {manifest["metadata"]["name"] for manifest in manifests("storage")}
    for template in pod_templates(ray_cluster()["spec"]):
        (container,) = template["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert set(mounts) == set(volumes)
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] in claims
        assert mounts["shared"] == "/shared"
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert environment["HF_HOME"].startswith("/shared/")
        assert container["envFrom"] == [{"secretRef": {"name": "cong-tokens", "optional": True}}]
        assert "TOKEN" not in "".join(environment)


def test_the_tracking_server_is_where_the_cluster_looks_for_it():
    _, deployment, service = manifests("mlflow")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    port = service["spec"]["ports"][0]["port"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    head = pod_templates(ray_cluster()["spec"])[0]["spec"]["containers"][0]
    uri = next(item["value"] for item in head["env"] if item["name"] == "MLFLOW_TRACKING_URI")
    assert uri == f"http://{service['metadata']['name']}:{port}"
    from mlflow.cli import cli

    program, command, *options = container["command"]
    assert program == "mlflow"
    parsed = cli.commands[command].make_context(command, options).params
    assert parsed["port"] == port
    assert f"{service['metadata']['name']}:{port}" in parsed["allowed_hosts"].split(",")


# `ray up`.


def test_ray_up_accepts_its_file_and_it_agrees_with_its_profile():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
    validate_config(prepare_config(config))
    for command in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        gpus = re.search(r"--num-gpus=(\d+)", command)
        assert gpus is not None
        assert int(gpus[1]) == load_profile("l40x4").decoding.actors


# The image.


def test_hadolint_finds_nothing_in_the_container_file():
    done = subprocess.run([BIN / "hadolint", CLUSTER / "Containerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_file_copies_what_there_is_and_installs_what_is_pinned():
    content: Any = io.BytesIO((CLUSTER / "Containerfile").read_bytes())
    file = DockerfileParser(fileobj=content)
    steps = [(step["instruction"], step["value"]) for step in file.structure]
    sources = [word for name, value in steps if name == "COPY" for word in value.split()[:-1] if word[:2] != "--"]
    assert all((ROOT / source).exists() for source in sources)
    kept = (CLUSTER / "Containerfile.dockerignore").read_text().splitlines()
    assert set(sources) == {line[1:] for line in kept if line.startswith("!")}
    installs = [part for name, value in steps if name == "RUN" for part in value.split("&&")]
    assert all("pip install" in part and "-c constraints.txt" in part for part in installs)
    assert file.baseimage == f"rayproject/ray:{PINS['ray']}-py311-gpu"
    assert f"WORKDIR {IMAGE_HOME.rstrip('/')}" in file.content


def test_every_file_speaks_of_the_same_image_and_the_same_ray():
    found = [name for path in CLUSTER.rglob("*.*") for name in re.findall(r"\S+/cong:[\w.]+", path.read_text())]
    assert set(found) == {f"registry.example.com/cong:{__version__}"}
    assert ray_cluster()["spec"]["rayVersion"] == PINS["ray"]


def test_every_command_in_the_files_and_the_readme_names_what_there_is():
    texts = [path.read_text() for path in (*CLUSTER.rglob("*.*"), *ROOT.glob("*/README.md"), ROOT / "README.md")]
    commands = [shlex.split(line) for text in texts for line in re.findall(r"cong (?:run|plan) [^'`\n#]+", text)]
    named = [words for words in commands if "--profile" in words]
    for words in named:
        profile = words[words.index("--profile") + 1]
        assert profile == "my.toml" or load_profile(profile)
    experiments = {word.removeprefix(IMAGE_HOME) for words in named for word in words if "experiments/" in word}
    assert experiments
    assert all((ROOT / experiment).is_file() for experiment in experiments)
    profiles = {words[words.index("--profile") + 1] for words in named}
    assert {"l40x4", "h100x8"} <= profiles
