"""What is under deploy/ is what the tools themselves accept, and agrees with our own settings, commands and ports."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from catalog.settings import ENV_PREFIX, Settings, load_settings
from catalog.tables.engine import NEEDS
from service.address import host_names
from service.gate import PUBLIC

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMAGE = f"winnow:{PROJECT['version']}"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The compose file as Docker Compose itself reads it."""
    filled = tmp_path_factory.mktemp("env") / "env"
    example = (DEPLOY / "example.env").read_text(encoding="utf-8")
    filled.write_text(re.sub(r"=$", "=s3cret", example, flags=re.MULTILINE), encoding="utf-8")
    ran = run_compose("--env-file", str(filled), "config")
    assert ran.returncode == 0, ran.stderr
    assert "level=warning" not in ran.stderr
    read: dict[str, Any] = yaml.safe_load(ran.stdout)
    return read


def run_compose(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "docker-compose"), "--file", str(DEPLOY / "docker-compose.yml"), *arguments]
    plain = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=plain)


def manifests() -> list[dict[str, Any]]:
    read = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        read += [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
    return read


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in manifests() if one["kind"] in kinds]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in of_kind("Deployment", "Job"):
        yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if service["image"] == IMAGE}


def settings_in(environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What our own loader makes of a container's variables: an unknown one is an error of its."""
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    with monkeypatch.context() as here:
        for name, value in environment.items():
            here.setenv(name, str(value))
        return load_settings()


def commands() -> list[list[str]]:
    found = [pod["containers"][0]["command"] for _, pod in pods()]
    services = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    found += [one["command"] for name, one in services.items() if name not in ("postgres", "redis", "store")]
    return [list(one) for one in dict.fromkeys(tuple(command) for command in found)]


def test_a_secret_that_nobody_chose_is_refused(tmp_path: Path) -> None:
    ran = run_compose("--env-file", str(DEPLOY / "example.env"), "config")
    assert ran.returncode != 0
    assert "choose one in deploy/.env" in ran.stderr


def test_dockerfile_passes_its_linter_and_copies_what_is_there() -> None:
    path = DEPLOY / "Dockerfile"
    ran = subprocess.run([BIN / "hadolint", path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")
    lines = path.read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in shlex.split(line)[1:-1]]
    sources = {word for word in copied if not word.startswith(("-", "/"))}
    assert all((ROOT / source).exists() for source in sources)
    allowed = set((DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split())
    assert {f"!{source}" for source in sources} <= allowed
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert {name.rstrip("*") for name in packages["find"]["include"]} <= sources
    (extras,) = [line.removeprefix("ARG EXTRAS=") for line in lines if line.startswith("ARG EXTRAS=")]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert {"postgres", "redis", "s3"} <= set(extras.split(","))
    (torch,) = {match for line in lines for match in re.findall(r"torch==\S+", line)}
    assert torch in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_manifest_is_what_the_api_server_would_accept(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, desired_version="1.37", strict=True)
    assert manifest["metadata"].get("namespace", "winnow") == "winnow"
    assert (manifest["kind"] == "Namespace") == ("namespace" not in manifest["metadata"])


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_command_exists_and_its_flags_parse(command: list[str]) -> None:
    # By this interpreter: the console script of the environment may be of another checkout.
    assert command[0] in ("python", *PROJECT["scripts"])
    words = command[1:] if command[0] == "python" else ["-m", "service.cli", *command[1:]]
    ran = subprocess.run([sys.executable, *words, "--help"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "usage" in ran.stdout.lower()


def test_compose_environments_are_settings_that_load(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = {
        name: settings_in(service["environment"] | {"WINNOW_HOME": str(tmp_path)}, monkeypatch)
        for name, service in ours(compose).items()
    }
    assert set(loaded) == {"init", "web", "worker-cpu", "worker-embed", "worker-train"}
    assert sorted(need for name, one in loaded.items() if "worker" in name for need in one.serves) == sorted(NEEDS)
    for one in loaded.values():
        assert (one.database, one.broker, one.store) == (
            loaded["web"].database,
            loaded["web"].broker,
            loaded["web"].store,
        )
        for url in (one.database, one.broker):
            assert urlsplit(url).hostname in compose["services"]
    services = compose["services"]
    endpoint = urlsplit(services["web"]["environment"]["AWS_ENDPOINT_URL"])
    assert endpoint.hostname == "store"
    assert f"-s3.port={endpoint.port}" in services["store"]["command"]
    assert f"http://127.0.0.1:{endpoint.port}/" in services["store"]["healthcheck"]["test"][1]
    assert services["store"]["environment"]["AWS_ACCESS_KEY_ID"] == services["web"]["environment"]["AWS_ACCESS_KEY_ID"]
    (published,) = services["web"]["ports"]
    assert published["target"] == loaded["web"].port
    assert published["host_ip"] == "127.0.0.1"
    assert f"http://127.0.0.1:{loaded['web'].port}/health'" in services["web"]["healthcheck"]["test"][-1]
    assert "127.0.0.1" in host_names(loaded["web"])


def test_compose_containers_of_ours_may_do_little(compose: dict[str, Any]) -> None:
    for name, service in ours(compose).items():
        assert service["read_only"], name
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        written = {mount.split(":")[0] for mount in service["tmpfs"]}
        written |= {one["target"] for one in service["volumes"] if not one.get("read_only")}
        assert written == {"/tmp", "/var/lib/winnow"}, name
    assert {port["host_ip"] for one in compose["services"].values() for port in one.get("ports", [])} == {"127.0.0.1"}


def test_store_of_the_compose_file_is_the_one_of_the_tests_and_knows_its_flags(compose: dict[str, Any]) -> None:
    version = subprocess.run([BIN / "weed", "version"], capture_output=True, text=True, check=True).stdout
    assert compose["services"]["store"]["image"].rsplit(":", 1)[1] in version.split()
    shown = subprocess.run([BIN / "weed", "help", "server"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  -(\S+)", shown.stdout + shown.stderr, flags=re.MULTILINE))
    given = [word for word in compose["services"]["store"]["command"] if word.startswith("-")]
    assert {word.lstrip("-").split("=")[0] for word in given} <= known
    assert "-master.telemetry=false" in given


def test_pod_environments_are_settings_that_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (config,) = of_kind("ConfigMap")
    secret = {"WINNOW_DATABASE_URL": "postgresql+psycopg://w@db/w", "WINNOW_BROKER_URL": "redis://queue:6379/0"}
    served: list[str] = []
    for name, pod in pods():
        (container,) = pod["containers"]
        assert [next(iter(one.values()))["name"] for one in container["envFrom"]] == ["winnow", "winnow"]
        given = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
        loaded = settings_in(config["data"] | secret | given | {"WINNOW_HOME": str(tmp_path)}, monkeypatch)
        served += loaded.serves if "worker" in name else ()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "web" not in name:
                assert probe not in container
                continue
            asked = container[probe]["httpGet"]
            (port,) = [one for one in container["ports"] if one["name"] == asked["port"]]
            assert port["containerPort"] == loaded.port
            assert asked["path"] in PUBLIC
            assert next(one["value"] for one in asked["httpHeaders"] if one["name"] == "Host") in host_names(loaded)
    assert sorted(served) == sorted(NEEDS)
    (ingress,) = of_kind("Ingress")
    assert ingress["spec"]["rules"][0]["host"] in config["data"]["WINNOW_ALLOWED_HOSTS"].split(",")
    named = re.findall(r"WINNOW_\w+", (DEPLOY / "kubernetes" / "10-settings.yaml").read_text(encoding="utf-8"))
    assert {name.removeprefix(ENV_PREFIX).lower() for name in named} <= set(Settings.model_fields)


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=[name for name, _ in pods()])
def test_pod_may_do_little_and_mounts_what_it_writes(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    mounted = {one["name"]: one for one in container["volumeMounts"]}
    assert set(mounted) == {one["name"] for one in pod["volumes"]}
    assert {one["mountPath"] for one in mounted.values() if not one.get("readOnly")} == {"/tmp", "/var/lib/winnow"}
    asked = {one["valueFrom"]["resourceFieldRef"]["resource"] for one in container.get("env", []) if "valueFrom" in one}
    assert asked <= {f"limits.{resource}" for resource in container["resources"]["limits"]}
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    assert {
        one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one
    } <= claims
    user = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert user == [(str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"]))]


def test_what_points_at_pods_finds_them() -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in of_kind("Deployment", "Job")
    }
    selectors = [one["spec"]["selector"] for one in of_kind("Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind("Deployment", "PodDisruptionBudget")]
    for selector in selectors:
        assert len([name for name, own in labels.items() if selector.items() <= own.items()]) == 1
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind("HorizontalPodAutoscaler")}
    assert scaled <= set(labels)
    for one in of_kind("HorizontalPodAutoscaler"):
        metric = one["spec"]["metrics"][0]["external"]["metric"]
        assert metric["selector"]["matchLabels"]["needs"] in NEEDS
        assert one["metadata"]["name"].endswith(metric["selector"]["matchLabels"]["needs"])
    (service,) = of_kind("Service")
    (web,) = [pod for name, pod in pods() if labels[name].items() >= service["spec"]["selector"].items()]
    assert service["spec"]["ports"][0]["targetPort"] in [one["name"] for one in web["containers"][0]["ports"]]
    (backend,) = [one["http"]["paths"][0]["backend"]["service"] for one in of_kind("Ingress")[0]["spec"]["rules"]]
    assert (backend["name"], backend["port"]["name"]) == (
        service["metadata"]["name"],
        service["spec"]["ports"][0]["name"],
    )
