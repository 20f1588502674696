"""`speechkit ngram` from text to scores."""

from pathlib import Path

import pytest

from speechkit.bin.__main__ import main
from speechkit.lm import read_arpa

TEXT = Path(__file__).parents[2] / "fixtures/harbour.txt"


def test_train_score_convert(tmp_path, capsys):
    arpa = tmp_path / "lm.arpa"
    train = ["ngram", "train", "--text", str(TEXT), "--order", "3", "--out", str(arpa)]
    assert main(train) == 0 and "44 +" in capsys.readouterr().err
    first = arpa.read_bytes()
    assert main(train) == 0 and "is up to date" in capsys.readouterr().err
    assert main([*train, "--force", "true"]) == 0 and arpa.read_bytes() == first
    assert main(["ngram", "convert", "--lm", str(arpa), "--out", str(tmp_path / "lm.arpa.gz")]) == 0
    (tmp_path / "text").write_text("u1 the tide sees\nu2 odd words\n")
    capsys.readouterr()
    lm = ["--lm", str(tmp_path / "lm.arpa.gz"), "--text", str(tmp_path / "text"), "--ids", "true"]
    assert main(["ngram", "score", *lm]) == 0
    out, err = capsys.readouterr()
    (name, log10, words, oov), second = (line.split() for line in out.splitlines())
    assert (name, words, oov) == ("u1", "3", "0") and second[2:] == ["2", "2"]
    assert float(log10) == pytest.approx(read_arpa(arpa).score("the tide sees"), abs=1e-6)
    assert "2 unknown of 5 words" in err
    assert main(["ngram", "score", *lm, "--out", str(tmp_path / "scores")]) == 0
    assert (tmp_path / "scores").read_text() == "#utterance log10 words oov\n" + out


def test_several_texts_words_and_fallback(tmp_path):
    (tmp_path / "a").write_text("a b\nb a\n")
    (tmp_path / "b").write_text("a c\n")
    (tmp_path / "words").write_text("a 1\nb 2\n")
    out = tmp_path / "lm.arpa"
    command = ["ngram", "train", "--text", str(tmp_path / "a"), str(tmp_path / "b"), "--order", "2"]
    assert main([*command, "--out", str(out)]) == 1 and not out.exists()
    command += ["--words", str(tmp_path / "words"), "--discount-fallback", "true", "--out", str(out)]
    assert main(command) == 0
    assert read_arpa(out).words == ["<unk>", "<s>", "</s>", "a", "b"]


def test_a_model_of_tokens_serves_the_search(tmp_path):
    """`ngram train --tokenizer` makes the model that `lm_unit: token` reads."""
    import torch

    from speechkit.lm import read_arpa
    from speechkit.search.ctc_beam import CtcBeam, CtcBeamConfig
    from speechkit.text.tokenizer import build_tokenizer

    text = tmp_path / "text"
    text.write_text("ab ba\nab ab\nba ab\n" * 3)
    tokenizer = build_tokenizer("char", ["ab ba"])
    tokenizer.save(tmp_path / "tokens")
    command = ["ngram", "train", "--text", str(text), "--order", "3", "--out", str(tmp_path / "x.arpa")]
    assert main([*command, "--tokenizer", str(tmp_path / "tokens"), "--discount-fallback", "true"]) == 0
    lm = read_arpa(tmp_path / "x.arpa")
    assert {"a", "b", "▁"} <= set(lm.words)
    beam = CtcBeam(CtcBeamConfig(lm_unit="token", lm_weight=5.0), tokenizer.vocab, lm=lm)
    assert beam.unknown == [token for token in tokenizer.vocab if token not in lm.index]
    log_probs = torch.full((1, 4, len(tokenizer.vocab)), -3.0)
    a, b = tokenizer.encode("ab")
    log_probs[0, [0, 2], a] = -0.1
    log_probs[0, 1, tokenizer.blank] = -0.1
    log_probs[0, 3, b] = -0.1  # by sound alone: aab, which the text never has
    (nbest,) = beam(log_probs.log_softmax(-1), torch.tensor([4]))
    assert tokenizer.decode(nbest[0].tokens) != "aab"
