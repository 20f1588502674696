"""Knowledge transfer into a transducer: what is taught, from where, and that nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bert_folders import theirs, weights_of, write_bert

from speechkit.bin.__main__ import main
from speechkit.config import load_config
from speechkit.data.batch import Batch, pad
from speechkit.errors import InputError, ProblemsError
from speechkit.lm.embedding_store import EmbeddingStore
from speechkit.models import transducer
from speechkit.models.assets import Assets
from speechkit.models.embedding_transfer import Config, Teacher
from speechkit.text.tokenizer import build_tokenizer

BINS = 20
TEXTS = ["the cats", "dog a dog", ""]
SMALL = [f"encoder.{o}" for o in ("dim=16", "layers=1", "heads=2", "feed_forward=32", "dropout=0")]
SMALL += ["prediction.dropout=0", "prediction.cells=12", "joint.dim=24"]


class World:
    """A tiny BERT, a tokenizer of its pieces, and a batch.

    Args:
        folder: for their files.
        specials: of the tokenizer.
    """

    def __init__(self, folder: Path, specials: str = "both") -> None:
        self.bert = write_bert(folder / "bert", weights=weights_of(theirs()))
        self.tokenizer = build_tokenizer("wordpiece", TEXTS, vocab=self.bert, specials=specials)
        self.tokenizer.save(folder / "tokens")
        lines = (f"u{k} {text}".strip() + "\n" for k, text in enumerate(TEXTS))
        (folder / "text").write_text("".join(lines))
        torch.manual_seed(5)
        features = pad([torch.randn(n, BINS) for n in (60, 80, 47)])
        tokens = pad([torch.tensor(self.tokenizer.encode(text), dtype=torch.int64) for text in TEXTS])
        fields = {"features": features, "tokens": tokens}
        self.batch = Batch(["u0", "u1", "u2"], torch.tensor([11, 12, 13]), None, fields)

    def model(self, *options: str) -> transducer.TransducerModel:
        """A tiny transducer."""
        torch.manual_seed(3)
        config = load_config(transducer.Config, overrides=[*SMALL, f"input_dim={BINS}", *options])
        return transducer.build(config, Assets(self.tokenizer))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize("specials", ["none", "sep_only", "both"])
def test_every_token_has_the_embedding_that_bert_gives_it_in_the_whole_sentence(tmp_path, specials):
    world = World(tmp_path, specials)
    targets = Teacher(Config(bert=str(world.bert)), world.tokenizer)(world.batch)
    sizes, peer = world.batch["tokens"].lengths.tolist(), theirs()
    assert targets.shape == (3, max(sizes), 16) and targets.dtype == torch.float32
    units = world.tokenizer.units
    cls, sep = units.vocab.index("[CLS]"), units.vocab.index("[SEP]")
    for row, text in enumerate(TEXTS):
        words = [units.vocab.index(piece) for piece in units._cutter.split(text)]
        with torch.no_grad():
            states = peer.bert(torch.tensor([[cls, *words, sep]])).last_hidden_state[0]
        wanted = {"both": states, "sep_only": states[1:], "none": states[1:-1]}[specials]
        assert len(wanted) == sizes[row]
        torch.testing.assert_close(targets[row, : sizes[row]], wanted, rtol=0, atol=2e-3)  # fp16 between
        assert targets[row, sizes[row] :].abs().sum() == 0


def test_a_store_gives_the_same_and_knows_other_texts(world, tmp_path, capsys):
    command = ["bert-embed", "--bert", str(world.bert), "--tokenizer", str(tmp_path / "tokens")]
    command += ["--text", str(tmp_path / "text"), "--out", str(tmp_path / "store")]
    assert main(command) == 0 and "3 sentences, 16 values" in capsys.readouterr().err
    assert main(command) == 0 and "up to date" in capsys.readouterr().err
    made = Teacher(Config(bert=str(world.bert)), world.tokenizer)(world.batch)
    teacher = Teacher(Config(store=str(tmp_path / "store")), world.tokenizer)
    assert teacher.dim == 16
    torch.testing.assert_close(teacher(world.batch), made, rtol=0, atol=2e-3)
    record = EmbeddingStore(tmp_path / "store").record
    sizes = world.batch["tokens"].lengths.tolist()
    rows = np.concatenate([row[:size].numpy() for row, size in zip(made, sizes)])
    np.testing.assert_allclose(record["mean"], rows.mean(0), atol=2e-3)
    np.testing.assert_allclose(record["std"], rows.std(0), atol=2e-3)
    standard = Config(store=str(tmp_path / "store"), normalise="standardise")
    rows = Teacher(standard, world.tokenizer)(world.batch)
    rows = np.concatenate([row[:size].numpy() for row, size in zip(rows, sizes)])
    off = np.abs(rows.mean(0)), np.abs(rows.std(0) - 1)  # a dimension that hardly varies suffers from fp16
    assert np.median(off[0]) < 0.02 and np.median(off[1]) < 0.02

    world.batch["tokens"].values[1, 1] = world.tokenizer.encode("cat")[1]
    with pytest.raises(InputError, match="utterance u1: .*has no embeddings of its text"):
        teacher(world.batch)
    other = build_tokenizer("wordpiece", TEXTS, vocab=world.bert, specials="none")
    with pytest.raises(InputError, match="--specials both, and the tokenizer has none"):
        Teacher(Config(store=str(tmp_path / "store")), other)(world.batch)
    values = tmp_path / "store/values.npy"
    values.write_bytes(values.read_bytes()[:-40])
    with pytest.raises(InputError, match="store: .*speechkit bert-embed"):
        EmbeddingStore(tmp_path / "store")


@pytest.mark.parametrize("regression", ["synchronous", "joint"])
@pytest.mark.parametrize("inputs", ["raw", "projected"])
def test_the_embeddings_are_learnt_and_teach_all_of_the_recogniser(world, regression, inputs):
    options = [
        f"transfer.bert={world.bert}",
        f"transfer.regression={regression}",
        f"transfer.inputs={inputs}",
    ]
    model = world.model(*options)
    assert model.weights == {"transducer": 1.0, "embedding": 0.01}
    first, count = model.train().loss(world.batch, 0)["embedding"]
    assert count == 3
    first.backward()
    moved = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert {"encoder", "prediction", "regression"} <= moved
    assert model.joint.out.weight.grad is None, "the lattice's weights are constants"
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for update in range(60):
        optimiser.zero_grad()
        loss, _ = model.loss(world.batch, update)["embedding"]
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * float(first.detach())


def test_the_encoder_can_be_left_out_of_it(world):
    model = world.model(f"transfer.bert={world.bert}", "transfer.detach_encoder=true")
    model.loss(world.batch, 0)["embedding"][0].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert any(p.grad is not None for p in model.prediction.parameters())


def test_without_a_weight_the_training_is_that_of_the_baseline_bit_for_bit(world):
    def train(*options: str) -> dict[str, torch.Tensor]:
        model = world.model(*options)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for update in range(20):
            optimiser.zero_grad()
            terms = model.train().loss(world.batch, update)
            sum(model.weights[name] * value / n for name, (value, n) in terms.items()).backward()
            optimiser.step()
        return model.state_dict()

    plain, without, taught = train(), train("transfer.sigma=0"), train(f"transfer.bert={world.bert}")
    assert plain.keys() == without.keys()
    assert all(torch.equal(plain[name], without[name]) for name in plain)
    assert not all(torch.equal(plain[name], taught[name]) for name in plain)


@torch.no_grad()
def test_nothing_of_it_is_in_what_is_decoded_with(world):
    model = world.model(f"transfer.bert={world.bert}").eval()
    config, left_out = model.for_recognition()
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(left_out)}
    for file in world.bert.iterdir():
        file.unlink()
    exported = transducer.build(config, Assets(world.tokenizer))
    exported.load_state_dict(kept)
    assert not [name for name in kept if "regression" in name or "bert" in name]
    found, wanted = (m.eval().encode(world.batch) for m in (exported, model))
    assert torch.equal(found["transducer"][0], wanted["transducer"][0])
    assert exported.recognise(found) == model.recognise(wanted)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["transfer.sigma=0.1"], "one of bert and store"),
        (["transfer.bert=a", "transfer.store=b"], "one of bert and store"),
        (["transfer.bert=a", "transfer.normalise=standardise"], "needs a store"),
        (["transfer.bert=a", "transfer.layers=[0]"], "different blocks"),
        (["transfer.bert=a", "transfer.distance=l3"], "not one of l1, l2"),
    ],
)
def test_bad_configurations_name_what_is_wrong(options, said):
    with pytest.raises(ProblemsError, match=said):
        load_config(transducer.Config, overrides=options)


def test_tokens_that_are_no_pieces_of_this_bert_are_refused(world, tmp_path):
    characters = build_tokenizer("char", TEXTS)
    with pytest.raises(InputError, match="not char; make the tokenizer with"):
        Teacher(Config(bert=str(world.bert)), characters)
    other = write_bert(tmp_path / "other", vocab=[*world.tokenizer.units.vocab, "more"])
    with pytest.raises(InputError, match="tokens are not the"):
        Teacher(Config(bert=str(other)), world.tokenizer)(world.batch)
