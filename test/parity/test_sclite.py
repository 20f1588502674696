"""Error counts against NIST's sclite (Debian package sctk).

sclite weighs a substitution 4 and an insertion or deletion 3. We take the fewest errors (Kaldi's
compute-wer) and sclite's choice among the alignments with that few. So the two may only differ where
sclite accepts more errors for a weight that is no larger; with a natural vocabulary that was never seen.
"""

import random
import shutil
import subprocess

import pytest

from speechkit.metrics.alignment import align, operation

SCLITE = ["sclite"] if shutil.which("sclite") else ["sctk", "sclite"]
pytestmark = pytest.mark.skipif(
    not shutil.which("sclite") and not shutil.which("sctk"), reason="needs sclite (apt install sctk)"
)


def sclite(folder, pairs):
    """sclite's path (a letter an alignment step) of every pair of texts."""
    for name, side in (("ref", 0), ("hyp", 1)):
        lines = (f"{' '.join(pair[side])} (s_{number:05d})\n" for number, pair in enumerate(pairs))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    command = [*SCLITE, "-s", "-e", "utf-8", "-i", "spu_id", "-r", "ref", "trn", "-h", "hyp", "trn"]
    done = subprocess.run(
        [*command, "-o", "sgml", "stdout"], cwd=folder, capture_output=True, text=True, check=True
    )
    paths, number = {}, None
    for line in done.stdout.split("\n"):
        if line.startswith("<PATH"):
            number = int(line.split('id="(s_')[1][:5])
            paths[number] = ""
        elif line[:2] in ("C,", "S,", "I,", "D,"):
            paths[number] = "".join(step[0] for step in line.split(":"))
    return [paths[number] for number in range(len(pairs))]


def ours(pairs):
    return ["".join(operation(*step) for step in align(*pair)) for pair in pairs]


def errors(path):
    return len(path) - path.count("C")


def weight(path):
    return 4 * path.count("S") + 3 * (path.count("I") + path.count("D"))


def corrupted(words, vocabulary, rng):
    """Words as a recogniser might hear them: some lost, some replaced, some doubled."""
    heard = []
    for word in words:
        chance = rng.random()
        if chance > 0.08:
            heard.append(rng.choice(vocabulary) if chance < 0.22 else word)
        if chance > 0.93:
            heard.append(rng.choice(vocabulary))
    return heard


def test_same_errors_on_noisy_sentences(tmp_path):
    rng = random.Random(1)
    vocabulary = [f"w{number}" for number in range(150)] + ["naïve", "don't", "well-known", "नमस्ते", "漢字"]
    references = [[rng.choice(vocabulary) for _ in range(rng.randint(1, 25))] for _ in range(1500)]
    pairs = [(reference, corrupted(reference, vocabulary, rng)) for reference in references]
    theirs, found = sclite(tmp_path, pairs), ours(pairs)
    # Errors by kind agree for every utterance, the very same path for nearly all.
    assert [[p.count(kind) for kind in "CSDI"] for p in found] == [
        [p.count(kind) for kind in "CSDI"] for p in theirs
    ]
    assert sum(a == b for a, b in zip(found, theirs)) / len(pairs) > 0.98


def test_ties_and_weights_on_unrelated_texts_of_three_words(tmp_path):
    rng = random.Random(2)
    texts = [[rng.choice("abc") for _ in range(rng.randint(1, 12))] for _ in range(4000)]
    pairs = list(zip(texts[::2], texts[1::2]))
    theirs, found = sclite(tmp_path, pairs), ours(pairs)
    for path, reference in zip(found, theirs):
        # Fewer errors than sclite only where its path has more errors and no larger weight.
        assert errors(path) <= errors(reference)
        assert errors(path) == errors(reference) or weight(reference) <= weight(path)
        # As many errors: never a heavier choice than sclite's.
        assert errors(path) < errors(reference) or weight(path) == weight(reference)
    same = sum(errors(a) == errors(b) for a, b in zip(found, theirs))
    assert same / len(pairs) > 0.99
    assert sum(a == b for a, b in zip(found, theirs)) / len(pairs) > 0.93


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("a", "b c d e f g"),
        ("a b c d e f g", "g"),
        ("a a a a", "a a"),
        ("a b a b a b", "b a b a b a"),
        ("A a", "a A"),
        ("the the the", "the"),
        ("x y", "y x"),
        ("é", "e\u0301"),
    ],
)
def test_nasty_pairs(reference, hypothesis, tmp_path):
    pair = (reference.split(), hypothesis.split())
    (theirs,), (found,) = sclite(tmp_path, [pair]), ours([pair])
    assert [found.count(kind) for kind in "CSDI"] == [theirs.count(kind) for kind in "CSDI"]


def test_empty_hypothesis(tmp_path):
    pairs = [(["a", "b"], []), (["c"], ["c"])]
    assert sclite(tmp_path, pairs) == ours(pairs) == ["DD", "C"]
