"""AN4: its sets, its download, and every stage in miniature."""

import json
import tarfile

import miniature_corpora as mini
import pytest
from recipes.large_recipe import ROOT, copy, program, stages, texts
from unit.data.test_download import web  # noqa: F401

from speechkit.errors import InputError

RECIPE = ROOT / "egs/an4/asr1"


@pytest.fixture
def corpus(tmp_path):
    """The corpus in miniature: its folder, and the texts of its sets."""
    return tmp_path / "an4", mini.make_an4(tmp_path)


def test_sets_share_no_speaker_and_lose_no_recording(corpus, tmp_path):
    folder, made = corpus
    program(RECIPE / "local/data.py").prepare(folder, tmp_path / "data")
    found = {name: texts(tmp_path / "data" / name / "text") for name in ("train", "dev", "test")}
    assert found["test"] == made["test"] and {**found["train"], **found["dev"]} == made["train"]
    speakers = {name: {utterance.split("-")[0] for utterance in rows} for name, rows in found.items()}
    assert speakers == {"train": {"fash", "fbbh"}, "dev": {"mblb"}, "test": {"fcaw"}}


def test_every_tenth_speaker_is_kept_for_dev(tmp_path):
    data = program(RECIPE / "local/data.py")
    many = data.DataDir()
    for number in range(25):
        many.wav[f"s{number:02d}-u"], many.text[f"s{number:02d}-u"] = "x.sph", "YES"
        many.utt2spk[f"s{number:02d}-u"] = f"s{number:02d}"
    train, dev = data.split(many)
    assert dev.speakers == ["s09", "s19"] and len(train.speakers) == 23


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("(an251-fash-b)", "an251-fash-b", "train.transcription:1: expected `<s> WORDS </s> (an406-fcaw-b)`"),
        ("<s> ENTER SIX TWO </s> (an251-fash-b)", "<s>  </s> (an251-fash-b)", "transcription:1: expected"),
        ("an252-fash-b", "an999-fash-b", "transcription:2: .*an999-fash-b.sph is not there"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(corpus, tmp_path, old, new, says):
    folder, _ = corpus
    path = folder / "etc/an4_train.transcription"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=says.replace("(", r"\(").replace(")", r"\)")):
        program(RECIPE / "local/data.py").prepare(folder, tmp_path / "data")
    with pytest.raises(InputError, match="--corpus-dir names the folder an4"):
        program(RECIPE / "local/data.py").prepare(tmp_path / "nowhere", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_it_is_downloaded_and_unpacked_once(corpus, tmp_path, web, capsys):  # noqa: F811
    folder, _ = corpus
    _, url, served = web
    with tarfile.open(served / "an4_sphere.tar.gz", "w:gz") as tar:
        tar.add(folder, "an4")
    fetch = program(RECIPE / "local/download.py").fetch
    for _ in range(2):
        fetch(tmp_path / "downloads", f"{url}/an4_sphere.tar.gz")
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == ["an4"]
    assert len(list((tmp_path / "downloads/an4/wav").rglob("*.sph"))) == 16
    assert "is there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_in_miniature(corpus, tmp_path):
    folder, made = corpus
    recipe = copy("an4/asr1", tmp_path)
    said = stages(recipe, "--corpus-dir", folder, "--methods", "all", timeout=800)
    assert "finished stages 0 1 2 3 5 6 7 8" in said
    table = (recipe / "quick/RESULTS.md").read_text()
    for row in ("ctc | ngram", "las | attention", "transducer | transducer"):
        assert f"| {row} |" in table
    result = json.loads((recipe / "quick/exp/las/seed1/decode_test_attention/result.json").read_text())
    assert result["counts"]["words"] == sum(len(text.split()) for text in made["test"].values())
