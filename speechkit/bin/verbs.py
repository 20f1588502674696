"""The verbs in the order a recipe uses them, each with one line of help."""

VERBS = {
    "doctor": "check Python, torch, hardware, system programs, disk and memory",
    "validate": "check a data directory and report every problem as file:line: message",
    "fix": "drop what is broken or incomplete from a data directory, with a ledger",
    "subset": "take part of a data directory: by speakers, hours, count, first, shortest or random",
    "combine": "join data directories",
    "split": "cut a data directory into parts for parallel jobs",
    "leakage": "look for speakers, sentences and recordings shared between data sets",
    "format": "decode, check and resample audio once into FLAC or archives, with true sample counts",
    "features": "dump log-mel or MFCC features to ark/scp, and CMVN statistics",
    "tokenizer": "learn or build a tokenizer and report characters outside it",
    "ngram": "train, convert or query Kneser-Ney n-gram language models in ARPA format",
    "train": "train a model; the same command again resumes",
    "average": "average checkpoints",
    "decode": "recognise a data directory",
    "score": "compare hypotheses with references: WER, CER, PER, intervals",
    "compare": "paired significance test between two decodes",
    "matrix": "run the systems of a recipe as restartable jobs",
    "report": "write RESULTS.md and its plots from result.json files",
    "transcribe": "recognise audio files with a trained model",
}
