"""Word pieces, batches and posteriors that nobody trained, of the published sizes; shared by benchmarks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from speechkit.data.batch import Batch, Padded
from speechkit.encoders.bert import BertAssets
from speechkit.models.assets import Assets
from speechkit.text.bert_vocab import NEEDED, BertVocab
from speechkit.text.tokenizer import build_tokenizer


def make_assets(vocab: int, dim: int, layers: int) -> Assets:
    """A BERT and a tokenizer of the same pieces."""
    pieces = [f"w{number}" for number in range(vocab)]
    tokens = [*NEEDED, *pieces]
    size = {"hidden_size": dim, "num_hidden_layers": layers, "num_attention_heads": dim // 64}
    size |= {"model_type": "bert", "vocab_size": len(tokens), "intermediate_size": 4 * dim}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vocab.txt")
        file.write_text("".join(f"{token}\n" for token in tokens))
        tokenizer = build_tokenizer("wordpiece", [" ".join(pieces)], vocab=file, pieces="pruned")
    return Assets(tokenizer, None, BertAssets(size, BertVocab.from_tokenizer(tokenizer)))


def encoder_options(dim: int, layers: int) -> list[str]:
    """Overrides for wav2vec 2.0 with blocks of BERT's size and a frozen feature encoder."""
    size = [f"layers={layers}", f"dim={dim}", f"heads={dim // 64}", f"feed_forward={4 * dim}"]
    size += ["name=wav2vec2", "preset=base", "layer_drop=0", "feature_grad_mult=0", "normalize=none"]
    return [f"encoder.{value}" for value in size]


def make_batch(seconds: list[float], rate: float, assets: Assets) -> Batch:
    """Noise of the given durations with so many random pieces a second."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([int(16000 * s) for s in seconds])
    speech = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=generator)
    for row, length in zip(speech, lengths.tolist()):
        row[length:] = 0
    counts = (lengths * rate / 16000).long().clamp(min=1)
    known = len(assets.bert.vocab) - 1
    pieces = torch.randint(0, known, (len(lengths), int(counts.max())), generator=generator)
    texts = [" ".join(f"w{k}" for k in row[:n]) for row, n in zip(pieces.tolist(), counts.tolist())]
    fields = {"speech": Padded(speech, lengths)}
    for name, encode in (("tokens", assets.tokenizer.encode), ("bert_tokens", assets.bert.vocab.encode)):
        ids = [torch.tensor(encode(text)) for text in texts]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        fields[name] = Padded(padded, torch.tensor([len(row) for row in ids]))
    return Batch([str(i) for i in range(len(lengths))], torch.arange(len(lengths)), None, fields)


class Told(nn.Module):
    """An output layer that knows the truth: blanks, and two frames for every piece with a few rivals.

    Args:
        batch: from `make_batch`.
        frames: `(B,)` of each utterance.
        dim: of a frame.
        size: of the output.
    """

    def __init__(self, batch: Batch, frames: Tensor, dim: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, size)  # costs what an output layer costs, and says next to nothing
        generator, tokens = torch.Generator().manual_seed(2), batch["tokens"]
        logits = torch.full((len(batch), int(frames.max()), size), -12.0)
        logits[:, :, 0] = 0.0
        for row, (count, length) in enumerate(zip(tokens.lengths.tolist(), frames.tolist())):
            for place in range(count):
                time = (2 * place + 1) * length // (2 * count)
                rivals = torch.randint(1, size - 1, (3,), generator=generator)
                logits[row, time : time + 2, 0] = -6.0
                logits[row, time : time + 2, rivals] = -1.0 - 3 * torch.rand(3, generator=generator)
                logits[row, time : time + 2, tokens.values[row, place]] = 0.0
        self.register_buffer("logits", logits)

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, V)`."""
        return self.logits + 1e-3 * self.linear(frames)


def tell(model: nn.Module, batch: Batch, dim: int, size: int) -> Told:
    """The output layer for this model and batch, on the batch's device."""
    frames = model.output_lengths(batch["speech"].lengths.cpu())
    cpu = Batch(batch.ids, batch.keys, None, batch.fields).to("cpu")
    return Told(cpu, frames, dim, size).to(batch["speech"].values.device)
