"""deploy/: what can be checked without a cluster, a Docker daemon, or Slurm. docs/clusters.md says
that no more was."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.docker import docker_start_cmds

from benchmarks.harness.jobs import STILL, write_moving
from pipelines.commands.label import LabelCommand
from pipelines.commands.train import TrainCommand
from pipelines.terminal.flags import parse
from tests.support.jobs import ROOT

DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_that_parses(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(script):
    subprocess.run(["shellcheck", str(script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_without_its_variables_says_which(script):
    done = subprocess.run(
        ["bash", str(script)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.returncode != 0
    first = "DATA to the labels" if "train" in script.name else "VIDEOS to what is to be labelled"
    assert f"set {first}" in done.stderr


def test_the_training_script_starts_a_process_for_each_gpu(tmp_path):
    """The script itself, with stand-ins that write down what they are called with; the flags are
    those of the command."""
    for name, says in (
        ("scontrol", "printf 'node1\\nnode2\\n'"),
        ("srun", f'printf "%s\\n" "$@" > {tmp_path}/called'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{says}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{"DATA": "labels", "OUT": "s3://bucket/round1", "INIT": "given.pth"},
        **{"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "123", "SLURM_NNODES": "2"},
        **{"SLURM_GPUS_ON_NODE": "8", "FLAGS": "--precision bf16 --keep 2"},
        "SLURM_CPUS_PER_TASK": "72",
    }
    subprocess.run(["bash", str(DEPLOY / "slurm-train.sh")], env=environment, check=True)
    called = (tmp_path / "called").read_text().split("\n")[:-1]
    asked, called = called[: called.index("torchrun")], called[called.index("torchrun") :]
    # all CPUs of the node for its readers, and no node waits for one that failed
    assert asked == ["--cpus-per-task=72", "--kill-on-bad-exit=1"]
    assert called[:3] == ["torchrun", "--nnodes=2", "--nproc-per-node=8"]
    assert "--rdzv-endpoint=node1:20123" in called
    command = parse(TrainCommand, "tapdistill train", called[called.index("train") + 1 :])
    assert (command.out, command.init, command.keep) == ("s3://bucket/round1", "given.pth", 2)
    assert (command.student, command.data.data) == ("online", ("labels",))


def test_every_step_of_the_ray_script_has_the_cpus_of_its_node(tmp_path):
    """Since Slurm 22.05, a step of a job gets one CPU unless it asks for more."""
    for name, says in (
        ("scontrol", "printf 'node1\\nnode2\\n'"),
        ("srun", f'echo "$@" >> {tmp_path}/called'),
        ("sleep", "true"),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{says}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{"VIDEOS": "videos", "OUT": "labels", "SLURM_CPUS_PER_TASK": "8"},
        **{"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "123"},
    }
    script = f"source {DEPLOY / 'slurm-ray.sh'}; wait"
    subprocess.run(["bash", "-c", script], env=environment, check=True)
    steps = (tmp_path / "called").read_text().splitlines()
    assert len(steps) == 3
    assert all("--cpus-per-task=8 --overlap --nodelist=node" in step for step in steps)


def test_no_script_ends_other_peoples_ray():
    for file in DEPLOY.iterdir():
        assert "ray stop" not in file.read_text()


@pytest.mark.slow
def test_the_tasks_of_an_array_label_everything(tmp_path):
    """The script itself, with `tapdistill` and Slurm's variables as a node has them."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for i in range(3):
        write_moving(videos / f"{i}.mp4", seed=i)
    command = tmp_path / "tapdistill"
    command.write_text(
        f'#!/bin/bash\ncd {ROOT} && exec {sys.executable} -m pipelines.cli "$@" --engine local '
        "--videos-per-unit 1\n"
    )
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "VIDEOS": str(videos),
        "OUT": str(out),
        "TEACHERS": STILL,
    }
    for task in range(2):
        variables = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        subprocess.run(
            ["bash", str(DEPLOY / "slurm-array.sh")],
            env=environment | variables,
            check=True,
            capture_output=True,
        )
    assert len(list(out.glob("shards/*.tar"))) == 3


def test_the_cluster_file_follows_rays_own_schema():
    jsonschema = pytest.importorskip("jsonschema")
    import json

    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]


def test_the_image_copies_what_the_package_needs():
    text = (DEPLOY / "Dockerfile").read_text()
    copied = [
        word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    built_from = tomllib.loads((ROOT / "pyproject.toml").read_text())
    of_setuptools = built_from["tool"]["setuptools"]
    modules = [f"{name}.py" for name in of_setuptools["py-modules"]]
    packages = [name.rstrip("*") for name in of_setuptools["packages"]["find"]["include"]]
    readme = built_from["project"]["readme"]
    assert {*modules, *packages, readme, "pyproject.toml", "constraints.txt"} <= set(copied)


def test_ray_can_start_the_image():
    """`ray up` runs `IMAGE bash` in it, which an entry point would take as its own argument, and
    calls ssh, rsync, and boto3 there; KubeRay's probes call wget."""
    text = (DEPLOY / "Dockerfile").read_text()
    started = docker_start_cmds("me", "IMAGE", {}, "name", [], "cluster", "/home/me", "docker")
    assert started.endswith("IMAGE bash")
    assert "ENTRYPOINT" not in text
    assert {"openssh-client", "rsync", "wget", "boto3"} <= set(text.split())


def test_the_job_for_kubernetes_is_a_command_of_ours_on_the_tested_ray():
    job = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    program, command, *flags = shlex.split(spec["entrypoint"])
    assert (program, command) == ("tapdistill", "label")
    assert parse(LabelCommand, "tapdistill label", flags).ray_address == "auto"
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    assert len({container["image"] for container in containers}) == 1
    assert all(one["env"] == containers[0]["env"] for one in containers)
    assert all(
        isinstance(value, str) for group in groups for value in group["rayStartParams"].values()
    )
