"""Tiny neural language models with random weights, for tests of searches."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from speechkit.config import from_dict
from speechkit.models import causal_lm


def make_lm(vocab: int, network: str = "lstm", seed: int = 3) -> causal_lm.CausalLm:
    """Of V tokens, the last one <sos/eos>; in fp64, with sharp outputs."""
    sizes = {"lstm": {"embedding": 5, "cells": 7, "layers": 2}, "stateless": {"dim": 6, "context": 3}}
    sizes["transformer"] = {"dim": 8, "layers": 2, "heads": 2, "feed_forward": 12, "context": 3}
    config = from_dict(causal_lm.Config, {"network": {"name": network, **sizes[network]}})
    torch.manual_seed(seed)
    tokenizer = SimpleNamespace(vocab=[str(token) for token in range(vocab)], eos=vocab - 1)
    model = causal_lm.CausalLm(config, tokenizer).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


@torch.no_grad()
def sentence_log_prob(model: causal_lm.CausalLm, tokens: list[int], end: bool = True) -> float:
    """Natural log probability of tokens, and of the end, all read at once."""
    states = model.network(torch.tensor([tokens], dtype=torch.int64).view(1, -1))[0]
    log_probs = model.output(states).log_softmax(-1)
    said = [*tokens, *([model.eos] if end else [])]
    return sum(float(log_probs[place, token]) for place, token in enumerate(said))
