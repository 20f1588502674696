"""Data: Kaldi directories, audio, archives, augmentation, batch plans, and what a model sees of them."""
