"""Frontends: from a waveform to features.

`FEATURES` maps a name to a module with `Config` and `build(config) -> extractor`; an extractor turns
`(S,)` float32 in [-1, 1] into `(T, F)` float32 and has `.dim`, `.rate` and `.frames(samples)`.
"""

FEATURES = {
    "fbank": "speechkit.frontends.fbank",
    "mfcc": "speechkit.frontends.mfcc",
}
