"""utils/recipe.sh and utils/parse_options.sh: stages, options, and status 2 for what is not understood."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = f"""\
#!/usr/bin/env bash
set -euo pipefail
stage=1             # first stage
stop_stage=8        # last stage
list_stages=false   # print the stages
force=false         # make again
word="two words"    # any text
empty=              # nothing yet
array=(1 2)
export exported=x
. {ROOT}/utils/recipe.sh
. {ROOT}/utils/parse_options.sh
check_int stage stop_stage
if stage 1 "one"; then
  printf '%s\\n' "$word" >one
fi
if stage 3 "three"; then
  if $force; then
    false
    touch after_failure
  fi
  printf '%s' "$empty" >three
fi
finish
touch finished
"""


@pytest.fixture
def recipe(tmp_path):
    """Calls the recipe above in a folder of its own."""
    (tmp_path / "run.sh").write_text(RECIPE)

    def call(*arguments):
        return subprocess.run(
            ["bash", "run.sh", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=20
        )

    return call


def made(folder):
    return {path.name for path in folder.iterdir()} - {"run.sh"}


def test_all_stages_in_order(recipe, tmp_path):
    done = recipe()
    assert done.returncode == 0
    assert made(tmp_path) == {"one", "three", "finished"}
    assert done.stderr.index("stage 1: one") < done.stderr.index("stage 3: three")
    assert "finished stages 1 3 in" in done.stderr


@pytest.mark.parametrize(
    "arguments, files",
    [
        (("--stage", "3"), {"three", "finished"}),
        (("--stop-stage", "1"), {"one", "finished"}),
        (("--stop-stage", "2"), {"one", "finished"}),
        (("--stage", "-1", "--stop-stage", "0"), set()),
        (("--stage", "2", "--stop-stage", "2"), set()),
        (("--stage", "3", "--stop-stage", "1"), set()),
        (("--stage", "99"), set()),
    ],
)
def test_ranges(recipe, tmp_path, arguments, files):
    done = recipe(*arguments)
    assert made(tmp_path) == files
    assert done.returncode == (0 if files else 2)
    assert files or "this recipe has: 1 3" in done.stderr


def test_list_of_stages_runs_nothing(recipe, tmp_path):
    done = recipe("--list-stages", "true")
    assert done.returncode == 0 and done.stdout == "   1  one\n   3  three\n"
    assert made(tmp_path) == {"finished"}


def test_values_reach_their_variables_as_they_are(recipe, tmp_path):
    text = "a 'b' \"c\" $(touch bad) `touch bad` ; touch bad | -x"
    assert recipe("--word", text, "--empty", "").returncode == 0
    assert (tmp_path / "one").read_text() == text + "\n"
    assert "bad" not in made(tmp_path)


def test_a_failing_command_stops_and_says_where_to_go_on(recipe, tmp_path):
    done = recipe("--force", "true")
    assert done.returncode == 1
    assert made(tmp_path) == {"one"}
    assert "stage 3 (three) failed (status 1); mend it and go on with --stage 3" in done.stderr


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--stage", "abc"), "--stage must be an integer, got 'abc'"),
        (("--stage", "08"), "--stage must be an integer, got '08'"),
        (("--stage", "1.0"), "got '1.0'"),
        (("--stage", ""), "got ''"),
        (("--stage", "1 "), "got '1 '"),
        (("--stop-stage", "a[$(touch bad)]"), "--stop-stage must be an integer"),
        (("--stop-stage", "99999999999999999999"), "must be an integer"),
        (("--stage", "word"), "must be an integer"),
        (("--stage",), "option --stage needs a value"),
        (("--stage", "--stop-stage", "3"), "option --stage needs a value"),
        (("--stage=3",), "write option and value as two words, '--stage 3'"),
        (("--stop_stage", "3"), "joined by hyphens"),
        (("--stag", "3"), "unknown option --stag"),
        (("-s", "3"), "unknown option -s"),
        (("--force", "yes"), "takes true or false, got 'yes'"),
        (("--list-stages", "1"), "takes true or false, got '1'"),
        (("--config", "file"), "unknown option --config"),
        (("--PATH", "x"), "unknown option --PATH"),
        (("--exported", "y"), "unknown option --exported"),
        (("--array", "y"), "unknown option --array"),
        (("--takes-arguments", "true"), "unknown option"),
        (("---", "x"), "unknown option"),
        (("--a[$(touch bad)]", "x"), "unknown option"),
        (("3",), "unexpected argument '3'"),
        (("--stage", "1", "rest"), "unexpected argument 'rest'"),
        (("--", "rest"), "unexpected argument 'rest'"),
    ],
)
def test_what_is_not_understood_exits_2(recipe, tmp_path, arguments, says):
    done = recipe(*arguments)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert made(tmp_path) == set()


def test_help_shows_defaults_and_comments(recipe, tmp_path):
    done = recipe("--help")
    assert done.returncode == 0 and made(tmp_path) == set()
    assert "--stop-stage     last stage (default: 8)" in done.stdout
    assert '--word           any text (default: "two words")' in done.stdout
    assert "--empty          nothing yet (default: )" in done.stdout
    assert "array" not in done.stdout


def test_arguments_are_left_for_scripts_that_take_them(tmp_path):
    script = tmp_path / "script.sh"
    script.write_text(
        f'set -euo pipefail\nsize=1\ntakes_arguments=true\n. {ROOT}/utils/parse_options.sh\necho "$size|$*"\n'
    )
    done = subprocess.run(
        ["bash", script, "--size", "2", "--", "--in", "out"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "2|--in out\n")
