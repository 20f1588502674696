"""What is asked of every system of a speech encoder and a BERT; the tiny ones are of `tiny_linguistic`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from tiny_linguistic import alone, make_assets, make_batch
from torch import nn

from speechkit.config import load_config
from speechkit.data.batch import Batch

ENCODER = [f"encoder.{o}" for o in ("dim=16", "layers=1", "heads=2", "feed_forward=32", "dropout=0")]


def make_model(
    module: ModuleType, folder: Path, *options: str, positions: int = 12, dim: int = 16, double: bool = False
) -> nn.Module:
    """A model, of characters unless the units are shared.

    Args:
        module: of `speechkit.models`.
        folder: for a vocab.txt.
        options: of its configuration; the encoder is tiny and drops nothing.
        positions: of BERT.
        dim: of BERT.
        double: make it float64.
    """
    own = {"units=retokenised", "units=words"} & set(options)
    assets = make_assets(folder, not own, positions, dim)
    torch.manual_seed(3)
    config = load_config(module.Config, overrides=[*ENCODER, "bert.dropout=0", *options])
    model = module.build(config, assets)
    return model.double() if double else model


def texts_of(batch: Batch) -> Batch:
    """The same without speech."""
    return replace(batch, fields={"bert_tokens": batch["bert_tokens"]})


def gradients(model: nn.Module, batch: Batch, term: str, update: int = 0) -> set[str]:
    """Names of the parameters that a term alone moves."""
    model.zero_grad(set_to_none=True)
    value, _ = model.loss(batch, update)[term]
    value.backward()
    return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def parts_of(names: set[str]) -> set[str]:
    """The modules that parameters belong to."""
    return {name.split(".")[0] for name in names}


@torch.no_grad()
def check_alone(model: nn.Module) -> None:
    """T1: what is made of an utterance is the same alone and beside others with padding of any content."""
    batch = make_batch(model, torch.float64)
    features = batch["features"]
    for row, length in enumerate(features.lengths.tolist()):
        features.values[row, length:] = 1e3
    together = model.encode(batch)
    texts = model.recognise(together)
    for row in range(len(batch)):
        single = model.encode(alone(batch, row))
        said = {name: values[0] for name, values in model.recognise(single).items()}
        assert said == {name: values[row] for name, values in texts.items()}
        for name, (values, lengths) in single.items():
            size = lengths.item()
            assert size == together[name][1][row].item(), name
            whole = together[name][0][row, :size]
            torch.testing.assert_close(whole, values[0, :size], rtol=0, atol=1e-10)


def learn_by_heart(model: nn.Module, batch: Batch, updates: int = 400) -> dict[str, list[str]]:
    """What a model recognises in a batch after so many updates on it."""
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for update in range(updates):
        model.train().set_update(update)
        drawn = replace(batch, keys=batch.keys + 1000 * update)  # other noise, as in another epoch
        losses = model.loss(drawn, update)
        terms = (
            model.weights.get(name, 0) * value / max(1, count) for name, (value, count) in losses.items()
        )
        optimiser.zero_grad()
        sum(terms).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    with torch.no_grad():
        return model.eval().recognise(model.encode(batch))
