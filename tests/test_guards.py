"""Guards: rules of the project that no other test would miss if they were broken."""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import importlib
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import labeler
import pipelines
import student
import teachers
from pipelines import cli
from tests.support.jobs import ROOT

ORDER = ("teachers", "labeler", "student", "pipelines")
"""Each may import itself and what stands before it."""
AROUND = ("experiments", "benchmarks", "tests")
"""Not shipped: nothing shipped imports them. Nor does any of them import what stands after it, but
tests use the servers and small jobs of the benchmarks."""

ROOMS = {
    "labeler": (
        ("reasons", "fingerprint", "lazy_sequence", "io"),
        ("sources",),
        ("video",),
        ("clips",),
        ("labels", "verifier"),
        ("shards", "show"),
        ("dataset", "unit"),
    ),
    "pipelines": (
        ("wording",),
        ("engines",),
        ("jobs",),
        ("terminal",),
        ("tracking", "reports", "exports"),
        ("live",),
        ("commands",),
        ("cli",),
    ),
}
"""Sub-packages and modules, from the bottom up: each may import what stands before it. Those that
share a line know nothing of each other, but for `SIDEWAYS`."""
SIDEWAYS = {("labeler.io", "labeler.reasons")}

HEAVY = ("ray", "torch")
"""Never imported by a module of `labeler` when it is imported itself."""
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 500, 69


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def modules() -> dict[str, Path]:
    """Every shipped module by its name."""
    files = [ROOT / "tapdistill.py", *(f for name in ORDER for f in (ROOT / name).rglob("*.py"))]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    return {name.removesuffix(".__init__"): file for name, file in sorted(names.items())}


def python_files(*folders: str) -> list[Path]:
    """The Python files that git knows, or would take, below the folders."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    names = subprocess.run([*listed, *folders], cwd=ROOT, capture_output=True, text=True).stdout
    return [
        ROOT / name for name in names.split("\n") if name.endswith(".py") and (ROOT / name).exists()
    ]


def imports(source: str | ast.AST) -> list[tuple[int, str]]:
    """(line, module) of every import, wherever it stands; `from a import b` is a.b if that is a
    module, and a if not."""
    found = []
    for node in ast.walk(ast.parse(source) if isinstance(source, str) else source):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name) for name in inner if name in modules()]
            if any(name not in modules() for name in inner):
                found.append((node.lineno, node.module))
    return found


def at_import(tree: ast.AST) -> Iterator[ast.stmt]:
    """The import statements that run when the module is imported: none inside a function, none for
    type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


def room(module: str) -> str:
    """ "labeler.io.storage" -> "labeler.io"."""
    return ".".join(module.split(".")[:2])


def upward_imports(package: str, source: str | ast.AST) -> list[tuple[int, str]]:
    above = ORDER[ORDER.index(package) + 1 :]
    return [
        (line, module)
        for line, module in imports(source)
        if module.split(".")[0] in (*above, *AROUND)
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
        for line, module in upward_imports(package, tree(file))
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
        (3, "pipelines.cli"),
        (4, "pipelines.commands.label"),
    ]
    assert upward_imports("pipelines", source) == []
    assert upward_imports("pipelines", "from benchmarks.harness import jobs\nimport tests") == [
        (1, "benchmarks.harness"),
        (2, "tests"),
    ]


@pytest.mark.parametrize("folder", AROUND[:-1])
def test_experiments_and_benchmarks_need_no_tests(folder):
    after = AROUND[AROUND.index(folder) + 1 :]
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in python_files(folder)
        for line, module in imports(tree(file))
        if module.split(".")[0] in after
    ]
    assert len(python_files(folder)) > 5
    assert found == []


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, or none."""
    try:
        list(graphlib.TopologicalSorter(arrows).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def arrows_at_import() -> dict[str, set[str]]:
    """Module -> those of ours that it imports when it is imported."""
    return {
        name: {
            module
            for node in at_import(tree(file))
            for _, module in imports(node)
            if module in modules() and module != name
        }
        for name, file in modules().items()
    }


def test_no_module_imports_itself_in_a_circle():
    assert circles(arrows_at_import()) == []


def test_no_sub_package_imports_itself_in_a_circle():
    between: dict[str, set[str]] = defaultdict(set)
    for name, found in arrows_at_import().items():
        # the __init__ of a package is its face, and below nothing of it
        between[room(name)] |= {
            room(module) for module in found if room(module) != room(name) and "." in module
        }
    assert circles(between) == []


def test_the_guard_of_circles_finds_one():
    assert set(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


@pytest.mark.parametrize("package", ROOMS)
def test_imports_between_sub_packages_run_one_way(package):
    height = {
        f"{package}.{name}": level for level, names in enumerate(ROOMS[package]) for name in names
    }
    mine = {name: file for name, file in modules().items() if name.startswith(f"{package}.")}
    assert {room(name) for name in mine} == set(height), "give every room a place in ROOMS"
    wrong = [
        f"{name}:{line} imports {module}"
        for name, file in mine.items()
        for line, module in imports(tree(file))
        if room(module) in height
        and room(module) != room(name)
        and height[room(module)] >= height[room(name)]
        and (room(name), room(module)) not in SIDEWAYS
    ]
    assert wrong == []


def named_in(tree: ast.AST) -> set[str]:
    """Modules of ours that a module imports anywhere, or names in a string, as "module" or
    "module:name"."""
    texts = {
        node.value.partition(":")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {name for name in texts | {name for _, name in imports(tree)} if name in modules()}


def test_every_shipped_module_is_reached_from_a_command_a_public_name_or_an_experiment():
    todo, reached = {"tapdistill", *ORDER}, set[str]()
    for file in python_files("experiments"):  # what trains the weights in the package
        todo |= named_in(tree(file))
    while todo:
        name = todo.pop()
        parents = name.split(".")
        reached.add(name)
        found = named_in(tree(modules()[name]))
        found |= {".".join(parents[:depth]) for depth in range(1, len(parents))}
        todo |= found - reached
    assert set(modules()) - reached == set()


def test_no_class_name_stands_in_two_files():
    homes: dict[str, set[str]] = defaultdict(set)
    for name, file in modules().items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(name)
    assert {name: sorted(found) for name, found in homes.items() if len(found) > 1} == {}


def test_no_file_and_no_function_is_too_long_to_read():
    long = []
    for file in python_files():
        name, lines = file.relative_to(ROOT), len(file.read_text().splitlines())
        if lines > MOST_LINES:
            long.append(f"{name} has {lines} lines")
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{name}:{node.lineno} {node.name} has {length} lines")
    assert long == []


def test_the_program_decides_nothing_by_an_assertion():
    """`python -O` takes them out; an error that can happen has a type of `teachers.errors`."""
    found = [
        f"{name}:{node.lineno}"
        for name, file in modules().items()
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Assert)
        or (isinstance(node, ast.Raise) and "AssertionError" in ast.unparse(node))
    ]
    assert found == []


# --- what users see imports only what users may import


def code_for_users() -> Iterator[tuple[str, str]]:
    """(place, source) of the code in notebooks and documentation; what a shell would run is left
    out."""
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(file.read_text())["cells"]):
            if cell["cell_type"] == "code":
                yield f"{file.name}, cell {number}", re.sub(r"^%%.*", "", "".join(cell["source"]))
    for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for text in re.findall(
            r"^```python\n(.*?)^```", file.read_text(), re.DOTALL | re.MULTILINE
        ):
            yield str(file.relative_to(ROOT)), text
        for line in re.findall(r"^    ((?:from|import) .*)$", file.read_text(), re.MULTILINE):
            yield str(file.relative_to(ROOT)), line


def private_imports(source: str) -> list[str]:
    """Imports from inside one of our packages, and of names that it does not give."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            inside = [alias.name for alias in node.names if "." in alias.name]
            wrong += [name for name in inside if name.split(".")[0] in ORDER]
        elif isinstance(node, ast.ImportFrom) and node.module:
            package = node.module.split(".")[0]
            given = importlib.import_module(package).__all__ if node.module in ORDER else []
            if package in ORDER:
                names = (alias.name for alias in node.names)
                wrong += [f"{node.module}.{name}" for name in names if name not in given]
    return wrong


def test_notebooks_and_documentation_import_only_public_names():
    found = list(code_for_users())
    assert len([place for place, text in found if "import " in text]) >= 6
    wrong = [f"{place}: {name}" for place, text in found for name in private_imports(text)]
    assert wrong == []


def test_the_guard_of_public_names_finds_what_is_inside():
    source = (
        "import labeler.io\nfrom labeler import Clip, s3\nfrom pipelines.cli import run\nimport os"
    )
    assert private_imports(source) == ["labeler.io", "labeler.s3", "pipelines.cli.run"]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "labeler").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_no_module_of_the_labeler_imports_ray_or_torch_when_it_is_imported(file):
    names = [name for node in at_import(tree(file)) for _, name in imports(node)]
    assert [name for name in names if name.split(".")[0] in (*HEAVY, "webdataset")] == []


PUBLIC = {
    teachers: "CheckpointError ConfigError DenseFlow FullStorageError InstallationError Mode "
    "ShardError Stream TapdistillError Teacher TeacherEntry TeacherError TeacherInfo "
    "Tracks TransientError VideoError VisibleRule entries load load_verifier names",
    labeler: "AgreementConfig Candidates Clip ClipConfig ClipVerdict Dataset EncodeConfig "
    "LabelPolicy Labels Policy QueryConfig Sample Target TrustConfig Verifier VideoReader agree "
    "choose decode_clip draw_tracks encode_clip is_hidden judge majority open_dataset open_video "
    "rainbow sample_queries",
    pipelines: "LabelConfig LabelResult label",
    student: "DataConfig FIGURES LABEL_FIGURES LossConfig Policy ScheduleConfig StepDone "
    "SynthClip SynthConfig TapirLossConfig TestClip TrainConfig choose compare generate "
    "perturbed_tracks reliability_loss score score_policy tapnext_loss tapvid_metrics train "
    "true_tracks with_interval",
}
"""What users may import. A name that goes or comes is a change for them: say it in the
changelog."""


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_what_a_package_gives_is_listed_and_there(package):
    assert sorted(package.__all__) == sorted(PUBLIC[package].split())
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        _ = package.no_such_name


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
