"""Guards: rules of the project that no other test would miss if they were broken."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from pathlib import Path

import pytest

import labeler
import student
import teachers
from pipelines import cli
from tests.support.jobs import ROOT

ORDER = ("teachers", "labeler", "student", "pipelines")
"""Each may import itself and what stands before it."""

HEAVY = ("ray", "torch")
"""Never imported by a module of `labeler` when it is imported itself."""


def imports(source: str) -> list[tuple[int, str]]:
    """(line, module) of every import, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.lineno, node.module))
    return found


def upward_imports(package: str, source: str) -> list[tuple[int, str]]:
    above = ORDER[ORDER.index(package) + 1 :]
    return [
        (line, module)
        for line, module in imports(source)
        if module.split(".")[0] in (*above, "tests")
    ]


@pytest.mark.parametrize(
    "file",
    [file for package in ORDER for file in sorted((ROOT / package).rglob("*.py"))],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_imports_run_one_way(file):
    package = file.relative_to(ROOT).parts[0]
    upward = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for line, module in upward_imports(package, file.read_text())
    ]
    assert upward == []


def test_the_guard_of_imports_sees_every_kind_of_import():
    source = """import student.evaluation.metrics as m
def f():
    from pipelines import cli
    import labeler, pipelines.commands.label
from teachers import x
"""
    assert upward_imports("labeler", source) == [
        (1, "student.evaluation.metrics"),
        (3, "pipelines"),
        (4, "pipelines.commands.label"),
    ]
    assert upward_imports("pipelines", source) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "labeler").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_no_module_of_the_labeler_imports_ray_or_torch_when_it_is_imported(file):
    module = ast.parse(file.read_text())
    inside = {
        id(node)
        for function in ast.walk(module)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    at_import = [
        name
        for node in ast.walk(module)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in inside
        for _, name in imports(ast.unparse(node))
    ]
    assert [name for name in at_import if name.split(".")[0] in (*HEAVY, "webdataset")] == []


PUBLIC = {
    teachers: "CheckpointError ConfigError DenseFlow Mode ShardError SurroundingsError "
    "TapdistillError Teacher TeacherEntry TeacherError TeacherInfo Tracks VideoError VisibleRule "
    "entries load names",
    labeler: "AgreementConfig Clip Dataset Labels Sample VideoReader decode_clip draw_tracks "
    "encode_clip open_dataset open_video sample_queries",
    student: "DataConfig LossConfig Policy ScheduleConfig StepDone SynthClip SynthConfig TestClip "
    "TrainConfig choose compare generate score tapvid_metrics train with_interval",
}
"""What users may import. A name that goes or comes is a change for them: say it in the
changelog."""


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_what_a_package_gives_is_listed_and_there(package):
    assert sorted(package.__all__) == sorted(PUBLIC[package].split())
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        _ = package.no_such_name


def test_pipelines_gives_nothing_to_import():
    assert importlib.import_module("pipelines").__all__ == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_page_that_begins_with_its_usage(name):
    page = ROOT / "docs" / "commands" / f"{name}.md"
    assert page.exists(), f"write docs/commands/{name}.md"
    assert page.read_text().startswith(f"# tapdistill {name}\n\n    tapdistill {name}")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_names_a_documented_config_and_a_function(name):
    command = cli.COMMANDS[name]
    module = importlib.import_module(command.module)
    config = getattr(module, command.config)
    assert dataclasses.is_dataclass(config)
    assert config.__doc__
    assert not config.__doc__.startswith(f"{config.__name__}("), (
        "dataclass wrote its own docstring: write one"
    )
    assert callable(getattr(module, command.function))


def test_every_page_of_a_command_is_of_a_command():
    assert {page.stem for page in (ROOT / "docs" / "commands").glob("*.md")} <= cli.COMMANDS.keys()


# --- a GPU test that is skipped on a machine with a GPU fails


@pytest.mark.parametrize(
    ("gpu", "outcome"),
    [
        (True, {"failed": 1, "errors": 1, "skipped": 1, "passed": 1}),
        (False, {"skipped": 3, "passed": 1}),
    ],
)
def test_a_skipped_gpu_test_fails_where_there_is_a_gpu(pytester, gpu, outcome):
    hook = Path(__file__).with_name("conftest.py").read_text().split("@pytest.fixture")[0]
    kept = hook[hook.index("@pytest.hookimpl") :]
    pytester.makeconftest(f"import pytest\n\ndef gpu_is_here():\n    return {gpu}\n\n{kept}")
    pytester.makeini("[pytest]\nmarkers = gpu: needs a GPU\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.gpu
        @pytest.mark.skipif(True, reason="no GPU here, it says")
        def test_marked_skip(): ...

        @pytest.mark.gpu
        def test_skips_itself():
            pytest.skip("no GPU here, it says")

        @pytest.mark.skip(reason="another reason")
        def test_of_something_else(): ...

        @pytest.mark.gpu
        def test_runs(): ...
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**outcome)
    if gpu:
        result.stdout.fnmatch_lines(
            ["*a test marked `gpu` was skipped on a machine with a GPU: *no GPU here, it says*"]
        )
