"""Frontends: from a waveform to features.

`FEATURES` maps a name to a module with `Config` and `build(config) -> extractor`; an extractor turns
`(S,)` float32 in [-1, 1] into `(T, F)` float32 and has `.dim`, `.rate` and `.frames(samples)`; and, in
samples, `.window` of a frame, `.shift` between frames and `.middle` of the first. It may have
`.many(waveforms)`, which works on several at once.
"""

FEATURES = {
    "fbank": "speechkit.frontends.fbank",
    "mfcc": "speechkit.frontends.mfcc",
    "encoder": "speechkit.decoding.encoder_features",
}
