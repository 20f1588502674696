"""Bad input to `speechkit codebook`: one clear line that names the file, its line and the utterance."""

import pytest
from decoding_checkpoints import CONFORMER, WAV2VEC2, make_checkpoint
from factories import write_table
from tiny_training import make_dump

from speechkit.bin.__main__ import main


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codebook")
    data = make_dump(folder / "data", 2, seconds=[1.0, 1.0])
    write_table(data / "phones.txt", {"s00-000": "a " * 100, "s01-000": "b " * 100})
    return data, make_checkpoint(folder / "model", WAV2VEC2, model="wav2vec2", cmvn=False)


def fails(capsys, world, phones, out, *said, options=(), status=1, model=None, data=None):
    words = ["codebook", "--exp", model or world[1], "--data", data or world[0], "--phones", phones]
    capsys.readouterr()
    assert main([*map(str, [*words, "--out", out, *options])]) == status
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1 and err.startswith("speechkit codebook: error: "), err
    for text in said:
        assert str(text) in err
    assert not (out / "codebook.json").exists()


def ctm(folder, *lines):
    path = folder / "x.ctm"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


GOOD = ["s00-000 1 0 0.5 a", "s01-000 1 0 1.0 b"]


@pytest.mark.parametrize(
    "lines, says",
    [
        (
            [GOOD[0], "s00-000 1 0.5 0.6 c", GOOD[1]],
            "x.ctm:2: utterance s00-000: a phone ends at 1.100 s, the audio at",
        ),
        (
            [GOOD[0], "s00-000 1 0.4 0.2 c", GOOD[1]],
            "x.ctm:2: utterance s00-000: 'c' from 0.4000 to 0.6000 s overlaps",
        ),
        (["s00-000 1 0.5 0.2 a", "s00-000 1 0 0.2 c", GOOD[1]], "x.ctm:2: utterance s00-000: 'c' from"),
        (
            ["s00-000 1 0.5 -0.2 a", GOOD[1]],
            "x.ctm:1: utterance s00-000: 'a' from 0.5000 to 0.3000 s: ends before",
        ),
        (["s00-000 1 -0.5 0.7 a", GOOD[1]], "x.ctm:1: utterance s00-000: 'a' from -0.5000"),
        ([*GOOD, "s02-000 1 0 0.1 a"], "x.ctm:3: no utterance 's02-000' in the data; did you mean"),
        ([*GOOD, GOOD[0]], "x.ctm:3: utterance s00-000 was there already"),
        ([GOOD[0], "s01-000 1 0 b"], "x.ctm:2: expected: utterance channel start duration phone"),
        ([GOOD[0], "s01-000 1 0 nan b"], "x.ctm:2: expected: utterance channel"),
        (GOOD[:1], "x.ctm: no phones for 1 utterance(s), the first is s01-000"),
    ],
)
def test_ctm(world, tmp_path, capsys, lines, says):
    fails(capsys, world, ctm(tmp_path, *lines), tmp_path, says)


@pytest.mark.parametrize(
    "content, says",
    [
        (
            "0 8000 a\n8000 20000 b\n",
            "S01-000.PHN:2: utterance s01-000: a phone ends at 1.250 s, the audio at 1.000 s",
        ),
        ("0 8000 a\n7000 9000 b\n", "S01-000.PHN:2: utterance s01-000: 'b' from 0.4375 to 0.5625 s overlaps"),
        ("0 8000 a\n8000 b\n", "S01-000.PHN:2: expected: first_sample end_sample phone"),
        ("0 8000.5 a\n", "S01-000.PHN:1: expected"),
        (b"0 8000 \xff\n", "S01-000.PHN:1: not UTF-8"),
    ],
)
def test_phn(world, tmp_path, capsys, content, says):
    (tmp_path / "s00-000.phn").write_text("0 16000 a\n")
    (tmp_path / "S01-000.PHN").write_bytes(content if isinstance(content, bytes) else content.encode())
    fails(capsys, world, tmp_path, tmp_path / "out", says)


def test_tables_of_another_rate(world, tmp_path, capsys):
    table = world[0] / "phones.txt"
    said = "phones.txt:1: utterance s00-000: a phone ends at 2.000 s, the audio at 1.000 s"
    fails(capsys, world, table, tmp_path, said, "the rate of its times", options=["--phone-rate", "50"])
    fails(capsys, world, table, tmp_path, "--phone-rate 0.0", options=["--phone-rate", "0"], status=2)
    fails(capsys, world, tmp_path / "none", tmp_path, "none: no such file or folder")


def test_models_without_a_quantizer(world, tmp_path, capsys):
    table = world[0] / "phones.txt"
    plain = make_checkpoint(tmp_path / "plain", CONFORMER)
    fails(capsys, world, table, tmp_path, "a model of kind ctc without a quantizer", model=plain)
    fails(capsys, world, table, tmp_path, "no such experiment folder", model=tmp_path / "none")


def test_data_that_was_not_formatted(world, tmp_path, capsys):
    data = make_dump(tmp_path / "data", 2, seconds=[1.0, 1.0])
    (data / "utt2num_samples").unlink()
    fails(capsys, world, world[0] / "phones.txt", tmp_path, "not made by speechkit format", data=data)
