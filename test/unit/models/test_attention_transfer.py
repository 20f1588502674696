"""Knowledge transfer into an attention decoder (Kubo et al., 2022, equations 1-4)."""

import pytest
import torch
from bert_folders import theirs, weights_of, write_bert

from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.errors import ProblemsError
from speechkit.models import attention
from speechkit.models.assets import Assets
from speechkit.models.embedding_transfer import Config, Teacher
from speechkit.text.tokenizer import build_tokenizer

BINS = 20
TEXTS = ["the cats", "dog a dog", ""]
SMALL = [f"encoder.{o}" for o in ("dim=16", "layers=1", "heads=2", "feed_forward=32", "dropout=0")]
LAS = "decoder={name: las, embedding: 12, cells: 16, attention_dim: 12, kernel: 5, dropout: 0.0}"


class Lesson:
    """A tiny BERT, a batch of its word pieces, and models that learn from both."""

    def __init__(self, folder):
        self.bert = write_bert(folder / "bert", weights=weights_of(theirs()))
        self.tokenizer = build_tokenizer("wordpiece", TEXTS, vocab=self.bert, specials="both")
        torch.manual_seed(5)
        features = pad([torch.randn(n, BINS) for n in (60, 80, 47)])
        tokens = pad([torch.tensor(self.tokenizer.encode(text)) for text in TEXTS])
        fields = {"features": features, "tokens": tokens}
        self.batch = Batch(["u0", "u1", "u2"], torch.tensor([1, 2, 3]), None, fields)

    def model(self, *options):
        torch.manual_seed(3)
        overrides = [*SMALL, LAS, f"input_dim={BINS}", *options]
        return attention.build(load_config(attention.Config, overrides=overrides), Assets(self.tokenizer))


@pytest.fixture
def lesson(tmp_path):
    return Lesson(tmp_path)


def test_the_regression_equals_a_loop_over_tokens(lesson):
    """Also: what stands in the padding of the targets counts for nothing."""
    model = lesson.model(f"transfer.bert={lesson.bert}", "transfer.sigma=0.25").eval()
    assert model.weights["embedding"] == 0.25
    targets = Teacher(Config(bert=str(lesson.bert)), lesson.tokenizer)(lesson.batch)
    tokens, eos, total = lesson.batch["tokens"], lesson.tokenizer.eos, 0.0
    with torch.no_grad():
        frames, lengths = model.encode(lesson.batch)["frames"]
        for row, size in enumerate(tokens.lengths.tolist()):
            ids = tokens.values[row, :size].tolist()
            for place in range(size):
                before = torch.tensor([[eos, *ids[:place]]])
                phi = model.decoder(before, frames[row : row + 1], lengths[row : row + 1])[0, -1]
                total += float((model.regression(phi) - targets[row, place]).abs().mean())
        found, count = model.loss(lesson.batch, 0)["embedding"]
        tokens.values[2, int(tokens.lengths[2]) :] = 4
        again, _ = model.loss(lesson.batch, 0)["embedding"]
    assert float(found) == pytest.approx(total, rel=1e-5) and count == 3
    assert torch.equal(found, again)


def test_it_teaches_decoder_attention_and_encoder(lesson):
    model = lesson.model(f"transfer.bert={lesson.bert}").train()
    model.loss(lesson.batch, 0)["embedding"][0].backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[0] for name in moved} == {"encoder", "decoder", "regression"}
    assert {"decoder.attention.state.weight", "decoder.projection.weight"} <= moved
    assert model.decoder.output.weight.grad is None


def test_without_a_weight_training_is_that_of_the_baseline_bit_for_bit(lesson):
    runs = []
    for options in ([], [f"transfer.bert={lesson.bert}", "transfer.sigma=0"]):
        model = lesson.model(*options).train()
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        for update in range(20):
            optimiser.zero_grad()
            losses = model.loss(lesson.batch, update)
            sum(weight * losses[name][0] for name, weight in model.weights.items()).backward()
            optimiser.step()
        runs.append([parameter.detach() for parameter in model.parameters()])
        assert all(parameter.isfinite().all() for parameter in runs[-1])
    assert len(runs[0]) == len(runs[1]) and all(torch.equal(a, b) for a, b in zip(*runs))


def test_nothing_of_it_is_left_in_what_recognises(lesson):
    model = lesson.model(f"transfer.bert={lesson.bert}").eval()
    config, left_out = model.for_recognition()
    assert config.transfer is None and config.decoder == model.config.decoder
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith(left_out)}
    assert len(weights) == len(model.state_dict()) - 2
    bare = attention.build(config, Assets(lesson.tokenizer)).eval()
    bare.load_state_dict(weights)
    assert bare.recognise(bare.encode(lesson.batch)) == model.recognise(model.encode(lesson.batch))


def test_options_of_transducers_are_refused(lesson):
    with pytest.raises(ProblemsError, match="detach_encoder is for transducers"):
        lesson.model(f"transfer.bert={lesson.bert}", "transfer.detach_encoder=true")
