"""What `bert-fit` counts, by hand, and the command itself."""

import pytest
from bert_folders import SPECIAL, VOCAB, write_bert

from speechkit.bin.__main__ import main
from speechkit.errors import InputError
from speechkit.text.bert_fit import check, lines, measure
from speechkit.text.normalise import Config, Normaliser
from speechkit.text.wordpiece_cut import Rules

TEXTS = {"u1": "the dogs don't", "u2": "the żó żcb cat", "u3": "The", "u4": ""}


def test_counts_by_hand():
    fit = measure(VOCAB, Rules(lower_case=True), TEXTS, positions=8)
    # the dog ##s don ' t | the [UNK] [UNK] cat | the
    assert (fit.texts, fit.words, fit.pieces) == (4, 8, 11)
    assert fit.unknown == {"żó": 1, "żcb": 1} and fit.unknown_share == pytest.approx(2 / 11)
    assert fit.characters == {"ż": 2, "ó": 1}  # c and b inside a word can be spelt
    assert fit.first["ż"] == fit.first["żó"] == "u2"
    assert fit.pieces_per_word == pytest.approx(11 / 8)
    assert (fit.used, fit.usable) == (7, len(VOCAB) - len(SPECIAL))
    assert fit.long == {}
    assert fit.changed == {"u3": "the"}
    assert fit.accents == 1 and fit.merged == 0
    assert fit.other.rules.strip_accents and fit.other.characters == {"z": 2, "o": 1}


def test_length_counts_the_ends():
    for pieces, long in ((6, {}), (7, {"u1": 7})):
        assert measure(VOCAB, Rules(), {"u1": "the " * pieces}, positions=8).long == long


def test_words_that_only_accents_tell_apart():
    vocab = [*SPECIAL, "ma", "má", "mà", "ba", "la"]
    fit = measure(vocab, Rules(), {"u1": "ma má ma", "u2": "mà ba lá"}, positions=512)
    assert fit.merged == 3 and fit.accents == 2 and fit.unknown == {"lá": 1}
    assert fit.other.unknown_share == 0
    lost = measure(vocab, Rules(strip_accents=True), {"u1": "má"}, positions=512)
    assert lost.other.rules == Rules() and lost.changed == {"u1": "ma"}
    assert "accents: lost; 1 texts have some. If they were kept: 0.00 % [UNK]" in "\n".join(
        lines("x", lost, 512)
    )


def test_refusal_lists_the_characters():
    fit = measure(VOCAB, Rules(lower_case=True), TEXTS, positions=8)
    check(fit, 0.2, "text")
    with pytest.raises(InputError, match=r"^text: 18.2 % .* more than 10 %: it lacks ż \(U\+017C, 2\) ó \("):
        check(fit, 0.1, "text")


def test_text_of_another_script():
    fit = measure(VOCAB, Rules(), {"u1": "привет мир"}, positions=8)
    assert (fit.unknown_share, fit.used, fit.changed) == (1, 0, {})
    with pytest.raises(InputError, match="100.0 % of the pieces"):
        check(fit, 0.99, "text")


def test_the_normaliser_comes_first():
    texts = {"u1": "The cat, the dog!"}
    plain = measure(VOCAB, Rules(lower_case=False), texts, 512)
    assert plain.unknown == {"The": 1, ",": 1, "!": 1}
    fit = measure(VOCAB, Rules(), texts, 512, Normaliser(Config(case="lower", punctuation="remove")))
    assert fit.unknown == {} and fit.changed == {}


def test_command(tmp_path, capsys):
    bert = write_bert(tmp_path / "bert")
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("u1 the dogs don't\nu2 the cat\n")
    bad.write_text("u1 the cat\nu2 żó ż\nu3 " + "the " * 11 + "\n")
    assert main(["bert-fit", str(bert), str(good)]) == 0
    out = capsys.readouterr().out
    assert f"{good}: 2 texts, 5 words, 8 pieces: 1.60 pieces per word" in out
    assert "[UNK]: 0 (0.00 % of the pieces)" in out
    assert f"7 of {len(VOCAB) - len(SPECIAL)} pieces are used (46.7 %)" in out
    assert "accents: kept; the texts have none" in out

    assert main(["bert-fit", str(bert), str(good), str(bad)]) == 1
    captured = capsys.readouterr()
    assert "bad: 13.3 % of the pieces are [UNK], more than 5 %: it lacks ż (U+017C, 2) ó (U+00F3, 1)" in (
        captured.err
    )
    assert len(captured.err.splitlines()) == 1
    assert "longer than 12 positions: 1 texts: u3" in captured.out
    assert "U+017C ż  2  LATIN  LATIN SMALL LETTER Z WITH DOT ABOVE  u2" in captured.out

    assert main(["bert-fit", str(bert), str(bad), "--max-unknown", "20", "--strip-accents", "true"]) == 0
    assert "accents: lost; 1 texts have some" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["nowhere", "text"], 1, "nowhere: neither a folder nor a model in transformers' cache"),
        (["bert", "nowhere"], 1, "nowhere: no such file"),
        (["bert", "text", "--max-unknown", "101"], 2, "--max-unknown 101: must be from 0 to 100"),
        (["bert", "text", "case=small"], 1, "case: 'small' is not one of"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, capsys, options, status, expected):
    monkeypatch.chdir(tmp_path)
    write_bert(tmp_path / "bert")
    (tmp_path / "text").write_text("u1 the cat\n")
    assert main(["bert-fit", *options]) == status
    message = capsys.readouterr().err
    assert expected in message and len(message.splitlines()) == 1
