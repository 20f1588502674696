"""Text: one declared normaliser, tokenizers, and the reading of plain Kaldi text files."""
