"""Systems that are variants of others in conf/systems.yaml."""

from dataclasses import replace
from pathlib import Path

import pytest

from speechkit.errors import ProblemsError
from speechkit.files import write_text
from speechkit.jobs import decode_jobs, score_jobs, train_jobs
from speechkit.systems import read_systems, select

HEAD = """
train_sets: [dump/train]
dev_set: dump/dev
tokenizer: data/tokens
test_sets: [dump/test]
decodes:
  greedy: {config: conf/greedy.yaml}
  fused: {config: conf/fused.yaml}
systems:
  ctc:
    title: CTC
    train: conf/ctc.yaml
    options: ["a={work}/b"]
    decodes: [greedy]
    seeds: 2
    text: none
    paper: {greedy: {test: 1.5}}
"""


def read(tmp_path, *lines):
    path = tmp_path / "systems.yaml"
    path.write_text(HEAD + "".join(f"  {line}\n" for line in lines))
    return read_systems(path, tmp_path / "work").systems


def test_a_variant_has_what_it_does_not_say(tmp_path):
    systems = read(
        tmp_path,
        "fused: {like: ctc, title: fused, train: conf/fused.yaml, decodes: [fused], options: [c=1]}",
        "control: {like: fused, title: control, options: [c=2], text: some, paper: {fused: {test: 2}}}",
    )
    work = tmp_path / "work"
    ctc, fused, control = systems.values()
    assert (fused.title, fused.train, fused.decodes) == ("fused", "conf/fused.yaml", ["fused"])
    assert (fused.seeds, fused.text, fused.paper) == (2, "none", {}), "the paper's number is another's"
    assert (control.train, control.decodes, control.seeds) == ("conf/fused.yaml", ["fused"], 2)
    assert (control.text, control.paper) == ("some", {"fused": {"test": 2.0}})
    assert control.options == [f"a={work}/b", "c=1", "c=2"], "the later wins"
    assert ctc.options == [f"a={work}/b"] and ctc.paper == {"greedy": {"test": 1.5}}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a: {like: ctcc, title: a}"], "systems.a.like: no system 'ctcc' above it; did you mean 'ctc'"),
        (
            ["a: {like: b, title: a}", "b: {title: b, train: c.yaml}"],
            "systems.a.like: no system 'b' above it",
        ),
        (["a: {like: ctc, title: a, commands: [true]}"], "commands stand instead of train"),
        (["a: {title: a, each: {x: [b, c]}}"], r"systems.a: there is a 'a' already; say each \{word\}"),
        (
            ["a: {like: ctc, title: a, test_sets: [dump/tset]}"],
            "no test set 'dump/tset'; did you mean 'dump/",
        ),
    ],
)
def test_what_cannot_be_a_variant_is_refused(tmp_path, lines, says):
    with pytest.raises(ProblemsError, match=says):
        read(tmp_path, *(line.replace("[true]", '["ls"]') for line in lines))


def test_a_system_is_repeated_for_each_combination(tmp_path):
    systems = read(
        tmp_path,
        '"pre_{way}": {each: {way: [one, two]}, title: "{way}", stage: 4, train: "conf/{way}.yaml"}',
        '"{way}_{set}": {like: ctc, each: {way: [one, two], set: [ky, nl]}, title: "{way} of {set}", '
        'init_encoder: "pre_{way}", train_sets: ["dump/{set}"], options: ["c={set}{seed}"]}',
        "more: {like: two_nl, title: more}",
    )
    names = ["ctc", "pre_one", "pre_two", "one_ky", "one_nl", "two_ky", "two_nl", "more"]
    assert list(systems) == names
    assert systems["pre_two"].train == "conf/two.yaml" and systems["pre_two"].title == "two"
    last, work = systems["two_nl"], tmp_path / "work"
    assert (last.title, last.init_encoder, last.train_sets) == ("two of nl", "pre_two", [f"{work}/dump/nl"])
    assert last.options == [f"a={work}/b", "c=nl{seed}"] and last.seeds == 2 and not last.each
    assert systems["more"].train_sets == last.train_sets


def test_a_system_has_test_sets_and_a_unit_of_its_own(tmp_path):
    path = tmp_path / "systems.yaml"
    head = HEAD.replace("[dump/test]", "[dump/test, dump/far]").replace(
        "fused.yaml}", "fused.yaml, unit: phone}"
    )
    own = "  own: {like: ctc, title: o, decodes: [greedy, fused], test_sets: [dump/far], seeds: 1}\n"
    path.write_text(head + own)
    systems, exp = read_systems(path), tmp_path / "exp"
    jobs = {job.name: job.command for job in decode_jobs(systems, systems.systems, 1, exp)}
    assert jobs["ctc/seed1/greedy"][-2:] == ["dump/test", "dump/far"]
    assert jobs["own/seed1/fused"][-2:] == ["--data", "dump/far"]
    for run in ("ctc/seed1/decode_test_greedy", "ctc/seed1/decode_far_greedy"):
        write_text(exp / run / "text", "u a\n")
    for how in ("greedy", "fused"):
        write_text(exp / f"own/seed1/decode_far_{how}/text", "u a\n")
    scored = {job.name: job.command[4:] for job in score_jobs(systems, systems.systems, 1, exp)}
    assert scored == {
        "score dump/test by words": [f"{exp}/ctc/seed1/decode_test_greedy"],
        "score dump/far by words": [f"{exp}/{name}/seed1/decode_far_greedy" for name in ("ctc", "own")],
        "score dump/far by phones": [f"{exp}/own/seed1/decode_far_fused", "--unit", "phone"],
    }


def test_pretraining_has_a_tokenizer_only_when_it_names_one(tmp_path):
    path = tmp_path / "systems.yaml"
    rows = "  {}: {{title: t, stage: 4, train: c.yaml{}}}\n"
    path.write_text(HEAD + rows.format("none", "") + rows.format("own", ", tokenizer: data/phones"))
    systems = read_systems(path)
    none, own = (
        " ".join(job.command) for job in train_jobs(systems, systems.systems, 1, Path("exp"), stage=4)
    )
    assert "--tokenizer" not in none and "--tokenizer data/phones --exp" in own


def test_statistics_are_the_recipes_the_systems_own_or_none(tmp_path):
    path = tmp_path / "systems.yaml"
    rows = "  {}: {{title: t, train: c.yaml{}}}\n"
    own = ', cmvn: "{work}/exp/a/seed{seed}/cmvn.json"'
    path.write_text(
        HEAD + rows.format("recipes", "") + rows.format("none", ", cmvn: none") + rows.format("own", own)
    )
    systems = replace(read_systems(path, Path("w")), cmvn="w/cmvn.json")
    jobs = train_jobs(systems, systems.systems, 2, Path("w/exp"))
    with_them = [job for job in jobs if "--cmvn" in job.command and not job.name.startswith("ctc")]
    given = {job.name: job.command[1 + job.command.index("--cmvn")] for job in with_them}
    recipes = {f"recipes/seed{seed}": "w/cmvn.json" for seed in (1, 2)}
    assert given == {**recipes, **{f"own/seed{seed}": f"w/exp/a/seed{seed}/cmvn.json" for seed in (1, 2)}}


def test_a_decode_is_left_out_without_the_systems_that_it_needs(tmp_path):
    path = tmp_path / "systems.yaml"
    text = HEAD.replace("conf/fused.yaml}", "conf/fused.yaml, needs: [bert]}").replace(
        "[greedy]", "[greedy, fused]"
    )
    path.write_text(text + "  bert: {title: a BERT, stage: 4, train: conf/bert.yaml}\n")
    systems = read_systems(path)
    names = {
        m: [job.name for job in decode_jobs(systems, select(systems, m), 1, Path("exp"))]
        for m in ("ctc", "all")
    }
    assert names == {"ctc": ["ctc/seed1/greedy"], "all": ["ctc/seed1/greedy", "ctc/seed1/fused"]}
    path.write_text(text + "  bart: {title: a BERT, stage: 4, train: conf/bert.yaml}\n")
    with pytest.raises(ProblemsError, match="decodes.fused.needs: no system 'bert'; did you mean 'bart'"):
        read_systems(path)
