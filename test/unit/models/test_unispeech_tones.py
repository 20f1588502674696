"""UniSpeech learns: tones as phones, from 60 s of sound, with a tiny encoder of log-mel features."""

import numpy as np
import pytest
import torch
from kaldialign import edit_distance

from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.frontends import fbank
from speechkit.models import unispeech
from speechkit.models.assets import Assets
from speechkit.search.greedy import ctc_greedy
from speechkit.train.update import take

TONES = 20
VOCAB = ["<blank>", "<unk>", *map(str, range(TONES)), "<sos/eos>"]
FBANK = fbank.build(fbank.Config())
STEPS, UTTERANCES, LENGTH = 300, 60, 1.0
OPTIONS = [
    "encoder={name: conformer, dim: 64, layers: 2, heads: 4, feed_forward: 128, dropout: 0, "
    "mask_embedding: true, subsampling: {factor: 2, channels: 16}}",
    "dropout=0",
    "dropout_features=0",
    "mask={probability: 0.2, length: 3}",
    f"quantizer={{entries: 320, temperature_updates: {STEPS // 2}}}",
    "contrastive.negatives=30",
    "projection_dim=64",
]


def utterance(random):
    """Log-mel features of about `LENGTH` seconds of tones of 120 to 200 ms, and which; neighbours differ."""
    frequencies = 200 * 2 ** np.linspace(0, 4.3, TONES)
    pieces, tones = [], []
    while sum(map(len, pieces)) < LENGTH * 16000:
        tone = int(random.choice([t for t in range(TONES) if t not in tones[-1:]]))
        time = np.arange(int(random.uniform(0.12, 0.2) * 16000)) / 16000
        envelope = np.minimum(1, np.minimum(time, time[::-1]) / 0.005)
        pieces.append(envelope * np.sin(2 * np.pi * (frequencies[tone] * time + random.random())))
        tones.append(tone)
    sound = np.concatenate(pieces)
    sound = 0.3 * sound + 0.01 * random.standard_normal(len(sound))
    features = FBANK(sound.astype(np.float32))
    return torch.from_numpy((features - features.mean()) / features.std()), torch.tensor(tones) + 2


def make_batch(count, seed):
    random = np.random.default_rng(seed)
    sounds, tones = zip(*(utterance(random) for _ in range(count)))
    fields = {"features": pad(list(sounds)), "tokens": pad(list(tones))}
    return Batch([str(i) for i in range(count)], torch.arange(count), None, fields)


def error_rate(batch, hypotheses):
    """PER in %."""
    tokens = batch["tokens"]
    references = [row[:n].tolist() for row, n in zip(tokens.values, tokens.lengths)]
    errors = sum(edit_distance(r, h)["total"] for r, h in zip(references, hypotheses))
    return 100 * errors / int(tokens.lengths.sum())


def train(batch, *overrides, size=40, rate=8e-3):
    """The model after `STEPS` updates."""
    torch.manual_seed(1)
    config = load_config(unispeech.Config, overrides=[*OPTIONS, *overrides])
    model = unispeech.build(config, Assets(type("Tokens", (), {"vocab": VOCAB}))).train()
    optimiser = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98))
    random = np.random.default_rng(2)
    for update in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate * min((update + 1) / 30, (STEPS - update) / (STEPS - 30))
        part = take(batch, random.choice(len(batch), size, replace=False).tolist())
        part.keys = part.keys + 1000 * update
        losses = model.loss(part, update)
        objective = sum(
            w * losses[name][0] / losses[name][1] for name, w in model.weights.items() if name in losses
        )
        objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tones_are_recognised_after_few_updates():
    """300 updates on 60 s: its PER is within 2 points of that with r = 0, other sound's below chance / 2.

    What is learnt from half of the frames replaced by codewords carries over to other sound less well: over
    four seeds 0.7 to 7.5 % where r = 0 has none.
    """
    heard, new = make_batch(UTTERANCES, 3), make_batch(20, 4)
    tokens = new["tokens"]
    others = [tokens.values[i - 1, : tokens.lengths[i - 1]].tolist() for i in range(len(new))]
    chance = error_rate(new, others)
    assert 75 < chance < 100
    models = {r: train(heard, f"replace={r}") for r in (0.5, 0.0)}
    with torch.no_grad():
        rates = {
            r: [error_rate(b, ctc_greedy(*m.encode(b)["ctc"])) for b in (heard, new)]
            for r, m in models.items()
        }
    assert rates[0.5][0] <= rates[0.0][0] + 2 and rates[0.5][1] < chance / 2, (rates, chance)
