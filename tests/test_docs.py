"""The documentation is true: what it shows runs, what it says is what the code says, its links lead
somewhere, and it builds.

What is run, and how:

    ```python     all of a page, as one program; that of the README may use `folder`
    ```console    the lines that begin with "$ tapdistill", with `QUICK` so that they take seconds
    indented      not run, for clusters, GPUs, and synopses; but flags that a command does not have
                  are found

Everything runs in one folder that has `my_videos` and `labels`, what the first command of the quick
start makes of them.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gc
import re
import shlex
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import yaml

import labeler.io.s3
import pipelines
import student
import teachers
from benchmarks.harness.jobs import write_moving
from experiments.policies.config import Experiment
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.reasons import FAILED, LEFT_OUT
from labeler.shards.plan import create_plan, plan_again, read_plans
from pipelines import cli
from pipelines.engines.layout import lay_out
from pipelines.terminal.flags import STORAGE_ALONE, STORAGE_WITH_VALUE, parse, take_storage_flags

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
QUICK = {
    "label": ("--engine", "local", "--queries.count", "24"),
    "train": ("--steps", "1", "--device", "cpu"),
}
"""Flags that are added to a command."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def pages_with(language: str) -> list:
    return [pytest.param(page, id=name_of(page)) for page in PAGES if fenced(page, language)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A folder with videos, a table of them, and their labels."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "my_videos").mkdir()
    for i in range(2):
        write_moving(folder / f"my_videos/{i}.mp4", seed=i)
    (folder / "my_videos/notes.txt").write_text("not a video")
    table = pd.DataFrame(
        {"path": ["my_videos/0.mp4", "my_videos/1.mp4"], "caption": ["a dog", "a cat"]}
    )
    table.to_csv(folder / "my_videos.csv", index=False)
    with contextlib.chdir(folder):
        assert cli.run(["label", "my_videos", "--out", "labels", *QUICK["label"]]) == 0
    return folder


# webdataset leaves tars open; they are closed by the collector below
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(page, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    names = {"folder": "labels"} if name_of(page) == "README.md" else {}
    for snippet in fenced(page, "python"):
        exec(compile(snippet, name_of(page), "exec"), names)
    gc.collect()


# webdataset leaves tars open; they are closed by the collector below
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_a_clip_that_was_done_again_once(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(workspace)
    labels = Storage(str(shutil.copytree("labels", tmp_path / "labels")))
    plans = read_plans(labels)
    assert create_plan(labels, 1, plan_again(plans, {plans[0]["uri"][0]}))
    assert cli.run(["label", "my_videos", "--out", labels.url, *QUICK["label"]]) == 0
    opened = open_dataset(labels.url)
    assert len(opened.tars) == 2
    monkeypatch.chdir(tmp_path)
    names = {"read": []}
    code = fenced(ROOT / "docs/shard-format.md", "python")[0]
    exec(compile(f'{code}    read.append(sample["__key__"])\n', "shard-format.md", "exec"), names)
    assert sorted(names["read"]) == sorted(opened.clips["key"])
    gc.collect()


def test_the_first_lines_of_python_print_what_the_readme_says(workspace, monkeypatch, capsys):
    """Of other labels: with other numbers, and other teachers."""
    page = (ROOT / "README.md").read_text()
    code, told = re.search(r"```python\n(.*?)```.*?```text\n(.*?)```", page, re.DOTALL).groups()
    monkeypatch.chdir(workspace)
    exec(compile(code, "README.md", "exec"), {})
    pattern = re.sub(r"\d+", r"\\d+", re.escape(told))
    pattern = re.sub(r"(?<=labelled\\ by\\ ).*", "flow, lk, match", pattern)
    assert re.fullmatch(pattern, capsys.readouterr().out)


@pytest.mark.parametrize("page", pages_with("console"))
def test_the_commands_of_a_page_run(page, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    shown = "\n".join(fenced(page, "console")).replace("\\\n", " ")
    for line in re.findall(r"^\$ tapdistill (.*)", shown, re.MULTILINE):
        command, *arguments = shlex.split(line, comments=True)
        assert cli.run([command, *arguments, *QUICK.get(command, ())]) == 0, line


def commands_of(page: Path) -> Iterator[str]:
    """Every command line of the page's blocks but synopses, whose brackets and dots no shell would
    take."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^(?:    |\$ )tapdistill (.*)", text, re.MULTILINE):
        command = line.partition(" #")[0]
        if not re.search(r"\[|\||\.\.\.", command):
            yield command


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name_of(page)) for page in PAGES if any(commands_of(page))]
)
def test_every_command_on_a_page_has_the_flags_that_it_shows(page, monkeypatch):
    monkeypatch.setattr(labeler.io.s3, "use", lambda **settings: None)
    for line in commands_of(page):
        name, *arguments = shlex.split(line)
        assert name in cli.COMMANDS, line
        command = cli.COMMANDS[name]
        parse(
            getattr(import_module(command.module), command.config),
            name,
            take_storage_flags(arguments),
        )


def flags_of(config: type) -> Iterator[str]:
    """Names of its fields and of those below, with and without what stands before them."""
    for name, kind in typing.get_type_hints(config).items():
        flag = name.replace("_", "-")
        yield flag
        if kind is bool:
            yield f"no-{flag}"
        if dataclasses.is_dataclass(kind):
            for below in flags_of(kind):
                yield from (below, f"{flag}.{below}")


def test_every_flag_in_a_text_is_one_of_a_command():
    known = {
        "from",
        "config",
        "recipe",
        "help",
        *(flag.removeprefix("--") for flag in STORAGE_WITH_VALUE),
    }
    known.add(STORAGE_ALONE.removeprefix("--"))
    for command in cli.COMMANDS.values():
        known.update(flags_of(getattr(import_module(command.module), command.config)))
    known.update(flags_of(Experiment))
    shown = {
        (name_of(page), flag)
        for page in PAGES
        for flag in re.findall(r"`--([a-z0-9.-]*[a-z0-9])", page.read_text())
    }
    assert {(page, flag) for page, flag in shown if flag not in known} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_reference_has_every_public_name():
    """By its own place, or that of its whole module."""
    shown = set(re.findall(r"^::: (.*)$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE))
    missing = [
        f"{package.__name__}.{name}"
        for package in (teachers, labeler, student, pipelines)
        for name in package.__all__
        if not {(home := package._MODULES[name]), f"{home}.{name}"} & shown
    ]
    assert missing == []


def navigation(entries: list) -> Iterator[str]:
    for entry in entries:
        for target in entry.values():
            yield from navigation(target) if isinstance(target, list) else [target]


def test_prose_has_lines_of_100_columns():
    """Tables and code are as wide as they must be."""
    long = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        lines = [line for line in prose.splitlines() if not line.startswith(("|", "    "))]
        long += [f"{page.name}: {line}" for line in lines if len(line) > 100]
    assert long == []


def test_every_page_is_in_the_navigation():
    listed = {*navigation(SITE["nav"])}
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert {page for page in pages - listed if not re.match(r"decisions/\d", page)} == set()
    assert listed <= pages


def test_every_decision_is_in_their_list():
    listed = re.findall(r"\((\d{4}-[^)]*\.md)\)", (ROOT / "docs/decisions/README.md").read_text())
    assert listed == sorted(path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]*)` \|", text, re.MULTILINE)


def test_every_reason_is_explained():
    text = (ROOT / "docs/label-your-videos.md").read_text()
    left_out, failed = text.partition("### Left out")[2].split("### Failed")
    assert (first_column(left_out), first_column(failed)) == (list(LEFT_OUT), list(FAILED))


def test_the_layout_on_the_page_about_clusters_is_that_of_such_a_cluster():
    assert f"    {lay_out([(8, 1)] * 8, 2, None)}\n" in (ROOT / "docs/clusters.md").read_text()


def texts_of_the_code() -> list[str]:
    """Every string constant of the source, those inside f-strings too."""
    files = [
        ROOT / "tapdistill.py",
        *(
            file
            for package in ("teachers", "labeler", "student", "pipelines")
            for file in (ROOT / package).rglob("*.py")
        ),
    ]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_message_of_the_troubleshooting_is_one_of_the_code():
    said = texts_of_the_code()
    messages = first_column((ROOT / "docs/troubleshooting.md").read_text())
    missing = [
        message
        for message in messages
        if not all(any(part in text for text in said) for part in re.split("…", message) if part)
    ]
    assert len(messages) > 20
    assert missing == []


def test_the_tool_and_the_page_name_the_same_teachers_as_free(capsys):
    assert cli.run(["teachers"]) == 0
    said = " ".join(capsys.readouterr().out.split()).partition("Commercial use: ")[2]
    free, _, forbidden = said.partition("; ")
    rows = re.findall(
        r"^\| (`.*?) \|.* (yes|no) \|$", (ROOT / "docs/teachers.md").read_text(), re.MULTILINE
    )
    of_page = {
        name: verdict for cell, verdict in rows for name in re.findall(r"`([a-z0-9-]+)`", cell)
    }
    for part, verdict in ((free, "yes"), (forbidden, "no")):
        for name in re.findall(r"[a-z0-9-]+", part):
            assert of_page.get(name, verdict) == verdict, name
    assert {name for name, verdict in of_page.items() if verdict == "no"} <= set(
        re.findall(r"[a-z0-9-]+", forbidden)
    )


def test_the_documentation_builds_without_a_warning(tmp_path):
    """On a copy, so that nothing is left in the working tree."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for name in ("teachers", "labeler", "student", "pipelines"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    reference = (tmp_path / "site/reference.html").read_text()
    assert "float32 [N, T, 2], px of the given frames" in reference
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]*)', reference)
    assert loaded == []
