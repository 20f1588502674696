"""Frontends: from a waveform to features.

`FEATURES` maps a name to a module with `Config` and `build(config) -> extractor`; an extractor turns
`(S,)` float32 in [-1, 1] into `(T, F)` float32 and has `.dim`, `.rate` and `.frames(samples)`; and, in
samples, `.window` of a frame, `.shift` between frames and `.middle` of the first. It may have
`.many(waveforms)`, which works on several at once. `VIDEO` holds the same for `(T, H, W, 3)` uint8 frames of
video instead of samples; only clusters are made of these.
"""

FEATURES = {
    "fbank": "speechkit.frontends.fbank",
    "mfcc": "speechkit.frontends.mfcc",
    "logmel": "speechkit.frontends.logmel",
    "encoder": "speechkit.decoding.encoder_features",
    "audio_patches": "speechkit.frontends.audio_patches",
}
VIDEO = {"video_patches": "speechkit.frontends.video_patches"}
