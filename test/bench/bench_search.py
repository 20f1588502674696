"""Beam search with a lexicon and a 4-gram: SpeechKit, flashlight-text and pyctcdecode on the same input.

    python test/bench/bench_search.py [--utterances 64] [--beams 50,100] [--words 2000]

Sentences come from a random bigram grammar; their characters become CTC log-probs with confusions and
noise, so that the best path has a WER of about 15 %. All decoders get the same log-probs, the
same ARPA file (trained here) and one thread. The peers run in their own venv (tools/install_decoders.sh),
in a subprocess that reads the inputs from an npz file. Times are CPU seconds of decoding alone, the best
of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SECONDS_PER_FRAME = 0.04
HERE = Path(__file__).resolve()


def make_language(words: int, random: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Distinct words of syllables, and a sparse matrix of which word follows which."""
    syllables = [a + b for a in "bdlmnprst" for b in "aeiou"]
    made: dict[str, None] = {}
    while len(made) < words:
        word = "".join(random.choice(syllables, random.integers(1, 4)))
        made[word + (random.choice(list("nrst")) if random.random() < 0.4 else "")] = None
    following = random.integers(0, words, (words, 12))
    return list(made), following


def sentence(words: list[str], following: np.ndarray, random: np.random.Generator) -> list[str]:
    """A walk through the grammar, with one free choice in seven."""
    place, said = int(random.zipf(1.3)) % len(words), []
    for _ in range(random.integers(4, 14)):
        said.append(words[place])
        choice = min(int(random.geometric(0.25)) - 1, 11)
        place = int(following[place, choice]) if random.random() < 0.85 else int(random.integers(len(words)))
    return said


def emit(text: str, random: np.random.Generator) -> np.ndarray:
    """`(T, V)` log-probs of a text: spiky tokens between runs of blank, some blurred or confused."""
    vocab = 2 + len(LETTERS)
    rows = []
    for letter in text + " ":  # flashlight drops a last word without a separator after it
        token = 1 if letter == " " else 2 + LETTERS.index(letter)
        for _ in range(random.integers(0, 3)):
            rows.append((0, 6.0))
        confused = random.random() < 0.05
        for _ in range(random.integers(1, 3)):
            rows.append((token, 2.0 if confused else 6.0))
    logits = random.normal(0, 1.0, (len(rows), vocab))
    for t, (token, strength) in enumerate(rows):
        logits[t, token] += strength
        if strength == 2.0:  # as strong: another letter
            logits[t, 2 + (token * 7 + 3) % len(LETTERS)] += 4.0
    return (logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float32)


def make_inputs(folder: Path, utterances: int, words: int) -> dict:
    """Writes arpa, lexicon and log-probs; returns what describes them."""
    from speechkit.lm import train_ngram, write_arpa

    random = np.random.default_rng(7)
    vocabulary, following = make_language(words, random)
    text = [" ".join(sentence(vocabulary, following, random)) for _ in range(20000)]
    started = time.perf_counter()
    write_arpa(train_ngram(text, 4, words=vocabulary, discount_fallback=(0.5, 1.0, 1.5)), folder / "lm.arpa")
    print(f"4-gram of {len(text)} sentences trained and written in {time.perf_counter() - started:.1f} s")
    tests = [" ".join(sentence(vocabulary, following, random)) for _ in range(utterances)]
    arrays = {f"u{i}": emit(line, random) for i, line in enumerate(tests)}
    np.savez(folder / "logprobs.npz", **arrays)
    (folder / "words.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "references.txt").write_text("\n".join(tests) + "\n")
    return {"seconds": sum(len(a) for a in arrays.values()) * SECONDS_PER_FRAME}


def errors(reference: list[str], hypothesis: list[str]) -> int:
    """Word edit distance."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def load(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    arrays = np.load(folder / "logprobs.npz")
    return [arrays[f"u{i}"] for i in range(len(arrays.files))], (folder / "words.txt").read_text().split()


def best_time(decode, repeats: int) -> tuple[float, list[str]]:
    taken, result = float("inf"), []
    for _ in range(repeats):
        started = time.process_time()  # all decoders use one thread; other programs' load does not count
        result = decode()
        taken = min(taken, time.process_time() - started)
    return taken, result


def speechkit(folder: Path, beam: int, weight: float, repeats: int, **options) -> dict:
    """Our search on the whole set in batches of 32."""
    import torch

    from speechkit.lm import read_arpa
    from speechkit.search.ctc_beam import CtcBeam, CtcBeamConfig
    from speechkit.search.greedy import ctc_greedy
    from speechkit.search.lexicon import Lexicon

    torch.set_num_threads(1)
    arrays, words = load(folder)
    batch = options.pop("batch", 32)
    order = sorted(range(len(arrays)), key=lambda i: -len(arrays[i]))
    vocab = ["<blank>", "▁", *LETTERS]
    spellings = [(n, tuple(2 + LETTERS.index(c) for c in word)) for n, word in enumerate(words)]
    config = CtcBeamConfig(beam=beam, lm_weight=weight, unk_score=float("-inf"), **options)
    search = CtcBeam(config, vocab, Lexicon(words, spellings, 1), read_arpa(folder / "lm.arpa"))
    batches = []
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        lengths = torch.tensor([len(arrays[i]) for i in rows])
        padded = torch.zeros(len(rows), int(lengths.max()), len(vocab))
        for row, i in zip(padded, rows):
            row[: len(arrays[i])] = torch.from_numpy(arrays[i])
        batches.append((rows, padded, lengths))

    def decode() -> list[str]:
        texts = [""] * len(arrays)
        for rows, padded, lengths in batches:
            for i, found in zip(rows, search(padded, lengths)):
                texts[i] = " ".join(found[0].words)
        return texts

    taken, texts = best_time(decode, repeats)
    greedy = [""] * len(arrays)
    for rows, padded, lengths in batches:
        for i, tokens in zip(rows, ctc_greedy(padded, lengths)):
            greedy[i] = "".join(vocab[t] for t in tokens).replace("▁", " ")
    return {"seconds": taken, "texts": texts, "greedy": greedy}


def flashlight(folder: Path, beam: int, weight: float, repeats: int) -> dict:
    """flashlight-text's LexiconDecoder with its KenLM."""
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconDecoder,
        LexiconDecoderOptions,
        SmearingMode,
        Trie,
    )
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    arrays, words = load(folder)
    word_dict = Dictionary()
    for word in [*words, "<unk>"]:
        word_dict.add_entry(word)
    word_dict.set_default_index(word_dict.get_index("<unk>"))
    lm = KenLM(str(folder / "lm.arpa"), word_dict)
    vocab = 2 + len(LETTERS)
    trie, start = Trie(vocab, 1), lm.start(False)
    for word in words:
        index = word_dict.get_index(word)
        trie.insert([2 + LETTERS.index(c) for c in word] + [1], index, lm.score(start, index)[1])
    trie.smear(SmearingMode.MAX)
    options = LexiconDecoderOptions(
        beam_size=beam,
        beam_size_token=vocab,
        beam_threshold=20.0,
        lm_weight=weight * float(np.log(10)),  # its scores are log10
        word_score=0.0,
        unk_score=float("-inf"),
        sil_score=0.0,
        log_add=True,
        criterion_type=CriterionType.CTC,
    )
    decoder = LexiconDecoder(options, trie, lm, 1, 0, word_dict.get_index("<unk>"), [], False)

    def decode() -> list[str]:
        texts = []
        for array in arrays:
            best = decoder.decode(array.ctypes.data, len(array), vocab)[0]
            texts.append(" ".join(word_dict.get_entry(w) for w in best.words if w >= 0))
        return texts

    taken, texts = best_time(decode, repeats)
    return {"seconds": taken, "texts": texts}


def pyctc(folder: Path, beam: int, weight: float, repeats: int) -> dict:
    """pyctcdecode with kenlm and its default pruning."""
    import logging

    from pyctcdecode import build_ctcdecoder

    logging.disable(logging.CRITICAL)
    arrays, words = load(folder)
    decoder = build_ctcdecoder(
        ["", " ", *LETTERS],
        str(folder / "lm.arpa"),
        unigrams=words,
        alpha=weight,
        beta=0.0,
        unk_score_offset=-1000.0,
    )
    taken, texts = best_time(lambda: [decoder.decode(array, beam_width=beam) for array in arrays], repeats)
    return {"seconds": taken, "texts": texts}


DECODERS = {"speechkit": speechkit, "flashlight": flashlight, "pyctcdecode": pyctc}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=64)
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--beams", default="50,100")
    parser.add_argument("--weight", type=float, default=0.6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=HERE.parents[2] / "tools/venv-decoders")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:  # in the peers' venv: decode and print JSON
        name, folder, beam = args.worker.split(":")
        print(json.dumps(DECODERS[name](Path(folder), int(beam), args.weight, args.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    about = make_inputs(folder, args.utterances, args.words)
    references = [line.split() for line in (folder / "references.txt").read_text().splitlines()]
    total = sum(map(len, references))

    def wer(texts: list[str]) -> float:
        return 100 * sum(errors(r, t.split()) for r, t in zip(references, texts)) / total

    print(f"{args.utterances} utterances, {about['seconds']:.0f} s of audio, {total} words")
    for beam in map(int, args.beams.split(",")):
        rows = {"speechkit": speechkit(folder, beam, args.weight, args.repeats)}
        rows["speechkit, blanks skipped"] = speechkit(
            folder, beam, args.weight, args.repeats, blank_skip=0.99
        )
        rows["speechkit, batch 1"] = speechkit(folder, beam, args.weight, 1, batch=1)
        if (args.peers / "bin/python").exists():
            for name in ("flashlight", "pyctcdecode"):
                worker = [str(args.peers / "bin/python"), str(HERE), "--worker", f"{name}:{folder}:{beam}"]
                worker += ["--weight", str(args.weight), "--repeats", str(args.repeats)]
                done = subprocess.run(worker, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr[-2000:])
                rows[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"beam {beam}: greedy WER {wer(rows['speechkit']['greedy']):.1f} %")
        for name, row in rows.items():
            speed = args.utterances / row["seconds"]
            print(
                f"  {name:<26} {row['seconds']:7.2f} s  {speed:7.1f} utt/s  "
                f"{about['seconds'] / row['seconds']:8.0f} x real time  WER {wer(row['texts']):5.2f} %"
            )


if __name__ == "__main__":
    main()
