"""Seconds for a training step of wav2vec 2.0: SpeechKit and transformers, same weights and batch, in turn.

    python test/bench/bench_wav2vec2.py --threads 2
    python test/bench/bench_wav2vec2.py --task pretrain --seconds 16,12,9,7,5,4,3,2
    python test/bench/bench_wav2vec2.py --seconds 4,4,4,4 --precisions fp32,bf16

`ctc` is fine-tuning with a frozen feature encoder: forward, CTC, backward, AdamW; the first losses of both,
without dropout, must be equal. `pretrain` is contrastive pre-training of everything. Dropout is on, in both
systems at the same places. The systems take turns within one process, so that whatever else the machine
does meets both; the ratio is the median over the turns. GFLOP/s count matrix products and convolutions of
valid frames alone, for both, whatever a system really computes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speechkit.data.batch import Batch, Padded  # noqa: E402
from speechkit.encoders import wav2vec2  # noqa: E402
from speechkit.layers.span_mask import span_mask  # noqa: E402
from speechkit.losses.ctc import ctc_loss  # noqa: E402
from speechkit.models import wav2vec2_pretraining  # noqa: E402
from speechkit.models.assets import Assets  # noqa: E402

VOCAB = 32
Loss = Callable[[Batch], Tensor]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--task", choices=("ctc", "pretrain"), default="ctc")
    add("--preset", default="base", help="base or large_lv60")
    add("--layers", type=int, help="fewer blocks than the preset has")
    add("--seconds", default="16,12,9,7,5,4,3,2", help="durations of the utterances of a batch")
    add("--dropout", type=float, default=0.1, help="everywhere: hidden, attention, activation")
    add("--layer-drop", type=float, default=0.05, help="0 for ratios that vary less from turn to turn")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=3)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precisions", help="fp32, bf16 or both with a comma; default: bf16 only where the hardware has it")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor seconds, for a busy machine")
    add("--only", choices=("speechkit", "transformers"), help="one system, for its peak memory")
    add(
        "--memory",
        action="store_true",
        help="also the peak memory of each, alone",
    )
    chosen = parser.parse_args()
    if chosen.precisions is None:
        has_bf16 = chosen.device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        chosen.precisions = "fp32,bf16" if has_bf16 else "fp32"
    return chosen


def make_batch(o: argparse.Namespace) -> Batch:
    """Noise of the given durations, and 12 tokens a second."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([int(16000 * float(s)) for s in o.seconds.split(",")])
    speech = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=generator)
    for row, length in zip(speech, lengths.tolist()):
        row[length:] = 0
    counts = lengths * 12 // 16000
    tokens = torch.randint(1, VOCAB, (len(lengths), int(counts.max())), generator=generator)
    fields = {"speech": Padded(speech, lengths), "tokens": Padded(tokens, counts)}
    return Batch([str(i) for i in range(len(lengths))], torch.arange(len(lengths)), None, fields).to(o.device)


def encoder_config(o: argparse.Namespace, **changes: object) -> wav2vec2.Config:
    rates = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "input_dropout"), o.dropout)
    return wav2vec2.Config(
        preset=o.preset, layers=o.layers, layer_drop=o.layer_drop, normalize="none", **{**rates, **changes}
    )


class OurCtc(nn.Module):
    """The encoder with a linear head."""

    def __init__(self, o: argparse.Namespace, **changes: object) -> None:
        super().__init__()
        self.wav2vec2 = wav2vec2.build(encoder_config(o, feature_grad_mult=0.0, **changes))
        self.lm_head = nn.Linear(self.wav2vec2.output_dim, VOCAB)

    def forward(self, batch: Batch) -> Tensor:
        speech, tokens = batch["speech"], batch["tokens"]
        output = self.wav2vec2(speech.values, speech.lengths)
        log_probs = self.lm_head(output.frames).float().log_softmax(-1)
        return ctc_loss(log_probs, output.lengths, tokens.values, tokens.lengths).sum()


def our_pretraining(o: argparse.Namespace) -> tuple[nn.Module, Loss]:
    config = wav2vec2_pretraining.Config(encoder=encoder_config(o), dropout_features=o.dropout)
    model = wav2vec2_pretraining.build(config, Assets())

    def loss(batch: Batch) -> Tensor:
        terms = model.loss(batch, 0)
        return sum(model.weights[name] * terms[name][0] for name in model.weights)

    return model, loss


def peer_config(o: argparse.Namespace) -> object:
    import transformers

    c = encoder_config(o)
    return transformers.Wav2Vec2Config(
        vocab_size=VOCAB,
        hidden_size=c.dim,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.feed_forward,
        feat_extract_norm=c.extractor,
        conv_bias=c.conv_bias,
        do_stable_layer_norm=c.norm == "pre",
        hidden_dropout=o.dropout,
        attention_dropout=o.dropout,
        activation_dropout=o.dropout,
        feat_proj_dropout=o.dropout,
        feat_quantizer_dropout=o.dropout,
        final_dropout=0.0,
        layerdrop=o.layer_drop,
        apply_spec_augment=o.task == "pretrain",
        ctc_loss_reduction="sum",
    )


def peer_ctc(o: argparse.Namespace) -> tuple[nn.Module, Loss]:
    import transformers

    model = transformers.Wav2Vec2ForCTC(peer_config(o))
    model.freeze_feature_encoder()

    def loss(batch: Batch) -> Tensor:
        speech, tokens = batch["speech"], batch["tokens"]
        columns = torch.arange(tokens.values.size(1), device=tokens.values.device)
        labels = tokens.values.masked_fill(columns >= tokens.lengths[:, None], -100)
        return model(speech.values, attention_mask=visible(speech), labels=labels).loss

    return model, loss


def peer_pretraining(o: argparse.Namespace) -> tuple[nn.Module, Loss]:
    import transformers
    from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

    model = transformers.Wav2Vec2ForPreTraining(peer_config(o))
    drawn: dict[str, Tensor] = {}

    def loss(batch: Batch) -> Tensor:
        speech = batch["speech"]
        if not drawn:  # what its recipes do while loading data
            frames = model._get_feat_extract_output_lengths(speech.lengths)
            mask = span_mask(frames, wav2vec2_pretraining.Config().mask, batch.keys)
            drawn["mask"] = mask
            places = _sample_negative_indices(
                tuple(mask.shape), model.config.num_negatives, mask.cpu().numpy()
            )
            drawn["negatives"] = torch.tensor(places, device=mask.device)
        return model(
            speech.values,
            attention_mask=visible(speech),
            mask_time_indices=drawn["mask"],
            sampled_negative_indices=drawn["negatives"],
        ).loss

    return model, loss


def visible(speech: Padded) -> Tensor | None:
    """transformers' attention mask; None without padding, as its users leave it out then."""
    mask = torch.arange(speech.values.size(1), device=speech.values.device) < speech.lengths[:, None]
    return None if mask.all() else mask.long()


def products(o: argparse.Namespace, batch: Batch) -> float:
    """Floating-point operations of a step's matrix products and convolutions over valid frames."""
    c = encoder_config(o)
    frames = lengths = batch["speech"].lengths.double().cpu()
    front, channels = 0.0, 1
    for width, kernel, stride in zip(c.conv_channels, c.conv_kernels, c.conv_strides):
        frames = torch.div(frames - kernel, stride, rounding_mode="floor") + 1
        front += 2 * float(frames.sum()) * width * channels * kernel
        channels = width
    total, squares = float(frames.sum()), float(frames.square().sum())
    linear = 2 * (4 * c.dim * c.dim + 2 * c.dim * c.feed_forward) * total + 4 * c.dim * squares
    place = 2 * c.dim * (c.dim // c.pos_conv_groups) * c.pos_conv_kernel * total
    context = (1 - o.layer_drop) * c.layers * linear + place + 2 * channels * c.dim * total
    assert lengths.numel() == len(batch)
    return 3 * context + (front if o.task == "ctc" else 3 * front)


class Trainer:
    """One system with its optimiser; `step` returns seconds."""

    def __init__(self, model: nn.Module, loss: Loss, o: argparse.Namespace) -> None:
        self.model, self.loss, self.device = model.to(o.device).train(), loss, o.device
        self.clock = {"wall": time.perf_counter, "cpu": time.process_time}[o.clock]
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(parameters, 1e-6, fused=True)

    def step(self, batch: Batch, bf16: bool) -> float:
        """Trains on the batch once."""
        start = self.clock()
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=bf16):
            loss = self.loss(batch)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.clock() - start


@torch.no_grad()
def check_losses(o: argparse.Namespace, mine: OurCtc, peer: nn.Module, loss: Loss, batch: Batch) -> None:
    """Same weights, no dropout: the same loss, where both read the padding in the group norm."""
    mine.load_state_dict(peer.state_dict())
    as_padded = OurCtc(o, pad_policy="hf").to(o.device).eval()
    as_padded.load_state_dict(mine.state_dict())
    peer.eval()
    ours, theirs = float(as_padded(batch)), float(loss(batch))
    peer.train()
    print(
        f"first loss: {ours:.6f}, transformers {theirs:.6f}, relative difference {abs(ours / theirs - 1):.1e}"
    )
    if abs(ours / theirs - 1) > 1e-5:
        sys.exit("the losses differ")


def peak_memory(device: str) -> float:
    """GB at most in use by this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measured_peak(o: argparse.Namespace, bf16: bool) -> float:
    """GFLOP/s of one large matrix product."""
    size, dtype = (8192 if o.device == "cuda" else 2048), torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(size, size, device=o.device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (a @ b).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def systems(o: argparse.Namespace, batch: Batch) -> dict[str, Trainer]:
    """Name -> trainer of what is asked for."""
    built: dict[str, tuple[nn.Module, Loss]] = {}
    if o.only != "transformers":
        if o.task == "ctc":
            mine = OurCtc(o).to(o.device)
            built["speechkit"] = mine, mine
        else:
            built["speechkit"] = our_pretraining(o)
    if o.only != "speechkit":
        built["transformers"] = (peer_ctc if o.task == "ctc" else peer_pretraining)(o)
        built["transformers"][0].to(o.device)
    if o.task == "ctc" and len(built) == 2:
        check_losses(o, mine, *built["transformers"], batch)
    return {name: Trainer(model, loss, o) for name, (model, loss) in built.items()}


def main() -> None:
    o = options()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    batch = make_batch(o)
    trainers = systems(o, batch)
    work = products(o, batch)
    for precision in o.precisions.split(","):
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for turn in range(o.rounds + 1):
            for name, trainer in trainers.items():
                seconds = trainer.step(batch, precision == "bf16")
                if turn or o.rounds == 0:  # the first one warms up
                    times[name].append(seconds)
        peak = measured_peak(o, precision == "bf16")
        print(
            f"{precision}, {o.clock} clock, {o.threads} threads: a matrix product runs at {peak:.0f} GFLOP/s"
        )
        for name, values in times.items():
            middle = statistics.median(values)
            line = f"  {name:13s} {middle:8.3f} s/step  {work / middle / 1e9:8.1f} GFLOP/s"
            if name == "speechkit" and "transformers" in times:
                ratio = statistics.median(b / a for a, b in zip(values, times["transformers"]))
                line += f"  {ratio:5.2f} x transformers"
            print(line, flush=True)
    if o.only:
        print(f"peak memory {peak_memory(o.device):.2f} GB")
    elif o.memory:
        for name in ("speechkit", "transformers"):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--rounds", "0"]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"  {name:13s} {out.splitlines()[-1]}")


if __name__ == "__main__":
    main()
