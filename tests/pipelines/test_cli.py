"""The command line: help for everything, one sentence for what cannot be done, and no traceback for
what was foreseen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.harness.jobs import NEAR, STILL
from benchmarks.harness.processes import FLAGS
from pipelines import cli
from pipelines.commands.eval import EvalCommand
from pipelines.commands.relabel import RelabelConfig
from pipelines.commands.train import TrainCommand
from pipelines.commands.verify import GcConfig
from pipelines.jobs.config import LabelConfig
from pipelines.terminal.flags import parse
from teachers import ConfigError
from tests.support.jobs import ROOT

OLD = str(ROOT / "tests" / "data" / "dataset_schema1")


def exit_code(*arguments: str) -> int:
    """As the console script would exit."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return int(caught.value.code or 0)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    assert exit_code(name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: tapdistill {name}")
    assert said.count("--s3-endpoint URL") == 1
    for flag in re.findall(r"--no-[a-z]+ .*\n?.*", said):
        # what the flag does, not what the field does
        assert re.search(r"Do not|unless", flag), flag
    assert "(default: )" not in said


def test_procedural_clips_are_named_by_their_seeds(tmp_path):
    scene = {"frames": 2, "height": 64, "width": 64, "points": 4}
    small = [f"--scene.{name}={value}" for name, value in scene.items()]
    assert exit_code("synth", str(tmp_path), "--clips", "1", "--seed", "7", "--mp4", *small) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"train-00007.mp4", "train-00007.npz"}


def test_a_url_for_a_path_is_refused(capsys):
    assert exit_code("scan", "videos", "--unique", "s3://bucket/folder") == 1
    assert "s3://bucket/folder: this is written to or read from a path" in capsys.readouterr().err
    assert not Path("s3:").exists()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_names_every_command(arguments, capsys):
    assert exit_code(*arguments) == 0
    said = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in said
        assert command.summary in said


def test_the_version_is_that_of_the_package(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out.strip() == version("tapdistill")


def test_a_command_that_does_not_exist_is_wrong_usage(capsys):
    assert exit_code("lable", "videos") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        "tapdistill: there is no command 'lable': there are demo, teachers, track, live, label"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("label",),
        ("label", "v", "--out", "o", "--no-such-flag"),
        ("label", "v", "--out", "o", "--workers", "two"),
    ],
)
def test_flags_that_do_not_parse_are_wrong_usage(arguments, capsys):
    assert exit_code(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def sentence(capsys) -> str:
    """The one line on standard error."""
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("tapdistill: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("label", "{tmp}/none*.mp4", "--out", "{tmp}/o"), "no file there"),
        (("label", "v", "--out", "s3://key:secret@bucket/o"), "must not hold a user or a password"),
        (
            ("label", "v", "--out", "{tmp}/o", "--agreement.tau-px", "0"),
            "tau_px = 0.0: must be above 0",
        ),
        (("label", "v", "--out", "{tmp}/o", "--clips.frames", "0"), "min_frames = 8, frames = 0"),
        (("label", "v", "--out", "{tmp}/o", "--teachers", "lk", "lk"), "each once"),
        (("label", "v", "--out", "{tmp}/o", "--checkpoint", "lk"), "write NAME=FILE"),
        (
            ("label", "v", "--out", "{tmp}/o", "--teachers", "tapir=a.pt"),
            "weights as --checkpoint tapir=a.pt",
        ),
        (("label", "v", "--out", "{tmp}/o", "--teachers", "lk,flow"), "--teachers lk flow"),
        (("gc", "{tmp}/v.mp4/labels"), "a part of that path is a file, not a folder"),
        (
            ("label", "{tmp}/v.mp4", "--out", "{tmp}/v.mp4", "--teachers", "lk", "--engine=local"),
            "a part of that path is a file, not a folder",
        ),
        (
            ("export", OLD, "--to", "parquet", "--out", "{tmp}/v.mp4/x"),
            "could not write --out",
        ),
        (
            (
                "label",
                "{tmp}/v.mp4",
                "--out",
                "{tmp}/o",
                "--engine",
                "local",
                "--teachers",
                "lk",
                "lkk",
            ),
            "no teacher 'lkk': there are lk, ",
        ),
        (("relabel", "{tmp}"), "is not a data set"),
        (("verify", "{tmp}/none"), "is not a data set"),
        (("gc", "{tmp}"), "is not a data set"),
        (("label", "--config"), "--config needs a file name"),
        (("label", "--config", "{tmp}/none.toml"), "none.toml: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_1(arguments, says, tmp_path, capsys):
    (tmp_path / "v.mp4").write_bytes(b"")
    assert exit_code(*(argument.format(tmp=tmp_path) for argument in arguments)) == 1
    said = sentence(capsys)
    assert says in said
    assert "secret" not in said


def test_an_unforeseen_error_shows_its_traceback(monkeypatch):
    monkeypatch.setattr("pipelines.commands.verify.run_gc", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.run(["gc", "somewhere"])


# --- --config FILE


def toml(tmp_path: Path, text: str) -> str:
    file = tmp_path / "job.toml"
    file.write_text(text)
    return str(file)


def test_a_file_gives_defaults_and_flags_beat_it(tmp_path):
    file = toml(
        tmp_path,
        'out = "there"\nteachers = ["lk", "flow"]\n[agreement]\ntau_px = 3\nmin_support = '
        "0.5\n[clips]\nstrides = [1, 2]\n",
    )
    config = parse(
        LabelConfig, "label", ["v.mp4", "w.mp4", "--config", file, "--agreement.tau-px", "1.5"]
    )
    assert config.videos == ("v.mp4", "w.mp4")
    assert (config.out, config.teachers, config.clips.strides) == ("there", ("lk", "flow"), (1, 2))
    assert (
        config.agreement.tau_px,
        config.agreement.min_support,
        config.agreement.min_visible_frames,
    ) == (1.5, 0.5, 8)


def test_a_whole_number_in_a_file_is_the_same_setting_as_on_the_command_line(tmp_path):
    """Settings are stored in every sample: 3 and 3.0 would be other bytes."""
    file = toml(tmp_path, "[agreement]\ntau_px = 3\n")
    from_file = parse(RelabelConfig, "relabel", ["data", f"--config={file}"])
    from_flag = parse(RelabelConfig, "relabel", ["data", "--agreement.tau-px", "3"])
    assert repr(from_file) == repr(from_flag)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "taus = 3",
            r"job\.toml sets 'taus', which LabelConfig does not have: there are videos, out",
        ),
        (
            "[agreement]\ntau = 3",
            r"job\.toml \[agreement\] sets 'tau', which AgreementConfig does not have: there are "
            r"tau_px",
        ),
        ("[agreement]\ntau_px = 0", r"tau_px = 0\.0: must be above 0"),
        ("agreement = 3", r"job\.toml: agreement = 3"),
        ('[agreement]\ntau_px = "three"', r"job\.toml \[agreement\]: tau_px = 'three'"),
        ("workers = 2.5", r"job\.toml: workers = 2\.5"),
        ("unsafe_decode = 1", r"job\.toml: unsafe_decode = 1"),
        ('engine = "dask"', r"job\.toml: engine = 'dask'"),
        ('teachers = "lk"', r"job\.toml: teachers = 'lk'"),
        ("teachers = [1, 2]", r"job\.toml: teachers = \[1, 2\]"),
        ("out = ", "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_with_its_name(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        parse(LabelConfig, "label", ["v", "--out", "o", "--config", toml(tmp_path, text)])


def test_a_file_works_for_every_kind_of_flag(tmp_path):
    config = parse(
        GcConfig, "gc", ["data", "--config", toml(tmp_path, "dry_run = true\nolder_than_s = 60")]
    )
    assert repr(config) == "GcConfig(data='data', older_than_s=60.0, dry_run=True)"
    quiet = parse(
        LabelConfig,
        "label",
        ["v", "--config", toml(tmp_path, 'out = "o"\nengine = "local"\nworkers = 1')],
    )
    assert (quiet.engine, quiet.workers, quiet.ray_address) == ("local", 1, None)


# --- flags that take several values


@pytest.mark.parametrize(
    "flags",
    [
        ("--data", "a", "b", "--data-weights", "1", "3"),
        ("--data", "a", "--data", "b", "--data-weights", "1", "--data-weights", "3"),
        ("--data=a", "--data-weights=1", "--data=b", "--data-weights=3"),
        ("--data_weights", "1", "--data", "a", "b", "--data-weights", "3"),
    ],
)
def test_values_of_a_flag_may_come_together_or_one_by_one(flags):
    data = parse(TrainCommand, "train", ["--recipe", "mini", "--out", "o", *flags]).data
    assert (data.data, data.data_weights, data.policy) == (
        ("a", "b"),
        (1.0, 3.0),
        "random-agreeing",
    )


def test_values_of_a_repeated_flag_leave_other_flags_and_arguments_alone():
    flags = (
        "--teachers",
        "lk",
        "--out",
        "o",
        "v.mp4",
        "--clips.strides",
        "1",
        "--teachers=match",
        "--clips.strides",
        "2",
        "--unsafe-decode",
    )
    config = parse(
        LabelConfig, "label", [*flags, "--checkpoint", "lk=1", "--checkpoint", "match=2"]
    )
    assert (config.videos, config.out, config.unsafe_decode) == (("v.mp4",), "o", True)
    assert (config.teachers, config.clips.strides, config.checkpoint) == (
        ("lk", "match"),
        (1, 2),
        ("lk=1", "match=2"),
    )
    assert parse(
        EvalCommand, "eval", ["--model", "a", "--seed", "3", "--model", "b=c.pth"]
    ).model == ("a", "b=c.pth")


def test_of_a_flag_with_one_value_the_last_counts_and_a_file_is_still_beaten(tmp_path):
    file = toml(tmp_path, 'out = "o"\nteachers = ["lk"]\nworkers = 1\n')
    flags = [
        "v.mp4",
        "--config",
        file,
        "--teachers",
        "flow",
        "--workers",
        "2",
        "--teachers",
        "match",
        "--workers",
        "3",
    ]
    config = parse(LabelConfig, "label", flags)
    assert (config.teachers, config.workers) == (("flow", "match"), 3)


# --- whole commands


def test_label_verify_relabel_and_gc_say_what_they_did(videos, tmp_path, capsys):
    out = str(tmp_path / "labels")
    assert exit_code("label", str(videos), "--out", out, "--teachers", STILL, NEAR, *FLAGS) == 0
    said = capsys.readouterr().out
    assert "7 clips, 168 queries of which 168 kept (100%), teachers near, still" in said
    assert exit_code("verify", out) == 0
    assert "3 shards with 7 clips are what their records say" in capsys.readouterr().out
    assert exit_code("relabel", out, "--agreement.tau-px", "0.9") == 0
    assert "3 of 3 units have new labels" in capsys.readouterr().out
    assert exit_code("gc", out, "--dry-run") == 0
    assert "3 files would be removed" in capsys.readouterr().out
    assert exit_code("gc", out) == 0
    assert exit_code("verify", out, "--quick") == 0
    next((tmp_path / "labels" / "shards").glob("*.tar")).unlink()
    capsys.readouterr()
    assert exit_code("verify", out) == 1
    out_text, err = capsys.readouterr()
    assert ".tar is missing" in out_text
    assert "1 problem" in err


def test_the_teachers_are_listed_with_their_licences(capsys):
    assert exit_code("teachers") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("lk", "flow", "match", "licence", "none needed"))
    assert "asked for by name: track-on-r-verifier (CC-BY-NC-4.0, pull)" in " ".join(said.split())


HEAVY = """
import sys
from pipelines import cli
cli.run(["--help"])
print(*sorted({"ray", "torch", "cv2", "av", "pandas", "tyro", "webdataset"} & set(sys.modules)))
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HEAVY],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == ""


def test_the_console_script_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "lable"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tapdistill: there is no command 'lable'")


def test_a_reader_that_has_seen_enough_ends_a_command_as_it_ends_others():
    """As `| head` does; 128 + SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "teachers"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
