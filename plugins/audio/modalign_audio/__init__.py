"""Audio for modalign: declarations only."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [Component("audio", "modalign_audio.modality:Audio", "Speech and sound as mono waveforms")]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component(
            "hf-audio",
            "modalign_audio.hf_audio:HFAudio",
            "wav2vec2, HuBERT, WavLM, AST, Whisper and CLAP from the Hugging Face hub or a folder",
        ),
        Component(
            "logmel-cnn",
            "modalign_audio.logmel_cnn:LogMelCNN",
            "a small convolutional network on log-mel frames, trained from scratch",
        ),
    ]
