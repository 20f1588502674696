"""Systems that are variants of others in conf/systems.yaml."""

from pathlib import Path

import pytest

from speechkit.errors import ProblemsError
from speechkit.jobs import decode_jobs
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
    ],
)
def test_what_cannot_be_a_variant_is_refused(tmp_path, lines, says):
    with pytest.raises(ProblemsError, match=says):
        read(tmp_path, *(line.replace("[true]", '["ls"]') for line in lines))


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
