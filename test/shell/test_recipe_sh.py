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


COMPARISON = f"""\
#!/usr/bin/env bash
set -euo pipefail
stage=4             # first stage
stop_stage=8        # last stage
list_stages=false   # print the stages
force=false         # make again
quick=false         # in quick/
folder=.            # where
methods="a,b*"      # systems
seeds=2             # runs
lanes=3             # at a time
processes=4         # of a training
checkpoint="x y.pt" # a file
dictionary=         # its letters
. {ROOT}/utils/recipe.sh
. {ROOT}/utils/parse_options.sh
choose_systems "$folder"
if stage 4 "convert"; then
  convert_checkpoint
fi
compare_systems "fine-tune"
finish
"""


@pytest.fixture
def comparison(tmp_path):
    """Calls a recipe that compares systems; returns the commands it ran, and what it said."""
    (tmp_path / "run.sh").write_text(COMPARISON)
    program, log = tmp_path / "speechkit", tmp_path / "calls"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{log}\necho >>{log}\n[ "$7" != "{{bad}}" ]\n')
    program.chmod(0o755)

    def call(*arguments):
        log.write_text("")
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        command = ["bash", "run.sh", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20
        )
        return log.read_text().replace("|\n", "\n").splitlines(), done

    return call


def test_systems_are_compared_in_four_stages(comparison):
    calls, done = comparison("--dictionary", "d e")
    assert done.returncode == 0, done.stderr
    matrix = "matrix|--systems|conf/systems.yaml|--work|.|--methods|a,b*|--seeds|2|--lanes|3|--force|false"
    assert calls == [
        "convert|--model|x y.pt|--out|./exp/downloaded/seed1/final|--force|false|--dictionary|d e",
        "convert|--model|x y.pt|--out|./exp/downloaded/seed2/final|--force|false|--dictionary|d e",
        f"{matrix}|--stage|5|--processes|4",
        f"{matrix}|--stage|6",
        f"{matrix}|--stage|7",
        "report|--exp|./exp|--systems|conf/systems.yaml|--out|./RESULTS.md",
    ]
    assert "finished stages 4 5 6 7 8 in" in done.stderr
    listed = comparison("--list-stages", "true")[1].stdout
    assert [line.split(None, 1) for line in listed.splitlines()] == [
        *(["4", "convert"], ["5", "fine-tune"], ["6", "decode"], ["7", "score"]),
        ["8", "report: RESULTS.md and plots"],
    ]


@pytest.mark.parametrize(
    "options, work",
    [
        (["--quick", "true"], "quick"),
        (["--folder", "ta"], "ta"),
        (["--folder", "ta", "--quick", "true"], "quick/ta"),
    ],
)
def test_quick_runs_stay_in_a_folder_of_their_own(comparison, options, work):
    calls, _ = comparison(*options, "--stage", "7", "--methods", "")
    quick = "_quick" if "--quick" in options else ""
    assert calls == [
        f"matrix|--systems|conf/systems{quick}.yaml|--work|{work}|--methods||--seeds|2|--lanes|3|--force|false"
        "|--stage|7",
        f"report|--exp|{work}/exp|--systems|conf/systems{quick}.yaml|--out|{work}/RESULTS.md",
    ]


@pytest.mark.parametrize(
    "bert, folder, fetched",
    [
        ("none", "none", ""),
        ("here", "here", ""),
        ("bert-base-chinese", "downloads/bert-base-chinese", "bert-base-chinese"),
        ("some.one/a_bert", "downloads/some.one/a_bert", "some.one/a_bert"),
        ("/no/where", None, ""),
        ("../nowhere", None, ""),
        ("a/b/c", None, ""),
    ],
)
def test_a_bert_is_a_folder_or_a_name_on_the_hub(tmp_path, bert, folder, fetched):
    (tmp_path / "here").mkdir()
    (tmp_path / "hf").write_text('#!/bin/sh\necho "$@" >fetched\n')
    (tmp_path / "hf").chmod(0o755)
    lines = ["set -euo pipefail", "bert=$1", f". {ROOT}/utils/recipe.sh", "choose_bert", "fetch_bert"]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*lines, 'echo "$bert_folder"']), "run.sh", bert],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip() or None, done.returncode) == (folder, 0 if folder else 2)
    assert bool(folder) or "--bert: no folder" in done.stderr
    command = (tmp_path / "fetched").read_text() if (tmp_path / "fetched").exists() else ""
    files = "config.json tokenizer_config.json vocab.txt model.safetensors"
    assert command == (f"download {fetched} {files} --local-dir {folder}\n" if fetched else "")


def test_a_failing_stage_of_a_comparison_is_named(comparison):
    calls, done = comparison("--methods", "{bad}")
    assert done.returncode == 1 and len(calls) == 3
    assert "stage 5 (fine-tune) failed (status 1); mend it and go on with --stage 5" in done.stderr
