"""Text in any language: what this plugin offers, by name."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities() -> list[Component]:
    return [Component("text", "modalign_text.modality:Text", "text in any language, as UTF-8 bytes")]


@hookimpl
def register_encoders() -> list[Component]:
    return [
        Component("char-cnn", "modalign_text.char_cnn:CharCNN", "small byte-level CNN, trained from scratch"),
        Component("hf-text", "modalign_text.hf_text:HFText", "any Hugging Face text model, token by token"),
        Component("minilm", "modalign_text.minilm:MiniLM", "all-MiniLM-L6-v2, English sentence encoder"),
    ]
